# SPDX-License-Identifier: Apache-2.0
"""RepNAS: searched branches against random, all and none, trained alike.

    python -m benchmarks.repnas_alike --store runs/repnas-alike

Every kind trains the same plain network with other parallel branches: the K that a search found
while it trained them (random, search and fixed phase), the same trained anew, as many drawn at
random, all branches (a diverse-branch block everywhere), and 3x3 with identity. All take the same
number of steps of the same recipe and seeds, and are merged to the same network, which is checked;
what differs is accuracy, and what a training step costs. Results are kept in the store, so that an
interrupted benchmark continues.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.output import Report, command, parser, spread
from chipfit.blocks.deploy import deploy
from chipfit.blocks.rep_branches import RepBranches
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput, ChipfitError
from chipfit.files import write_bytes
from chipfit.graph.capture import trace
from chipfit.methods.repnas_network import BranchNetwork
from chipfit.methods.repnas_places import find_places
from chipfit.nets import create
from chipfit.space.branches import branch_subsets
from chipfit.targets import create as create_target
from chipfit.tasks import Task, load_task
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed
from chipfit.workers import WorkerPool

NET = "tiny_rep_branches"
SEARCHED, ANEW, RANDOM, ALL, PLAIN = (
    "searched K", "searched K, trained anew", "random K", "all branches", "3x3 and identity",
)  # fmt: skip
#: Batches and their images that batch norms are re-estimated on before merging.
CALIBRATION = (8, 64)

Row = dict[str, Any]
Chosen = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Job:
    """One network to train.

    Args:
        kind: What its branches are.
        seed: Of initial weights and of the order of the data.
        draw: Number of the random subset.
        steps: Of the training.
        share: Of all branches that K is.
        rate: Of the logits.
        folder: Where the result is kept.
    """

    kind: str
    seed: int
    draw: int
    steps: int
    share: float
    rate: float
    folder: Path

    @property
    def file(self) -> Path:
        """Of the result."""
        name = self.kind.replace(" ", "-").replace(",", "")
        return self.folder / f"{name}-{self.draw}-seed-{self.seed}.json"

    @property
    def searched(self) -> Chosen:
        """What the search of this seed found, which is done before."""
        kept = replace(self, kind=SEARCHED, draw=0).file
        found: Chosen = json.loads(kept.read_text())["chosen"]
        return found


def with_only(net: nn.Module, chosen: Chosen) -> nn.Module:
    """Return the network with fewer branches; those that stay keep their initial weights."""
    for name, kept in chosen.items():
        old = net.get_submodule(name)
        assert isinstance(old, RepBranches)
        new = RepBranches(
            old.in_channels, old.out_channels, old.stride, branches=kept, act=old.act_name
        )
        state = old.state_dict()
        new.load_state_dict({key: state[key] for key in new.state_dict()})
        net.set_submodule(name, new)
    return net


def branches_of(job: Job, net: nn.Module) -> Chosen | None:
    """Return the branches of a job's network by place; ``None`` where a search decides."""
    places = find_places(net)
    if job.kind == SEARCHED:
        return None
    if job.kind == ANEW:
        return job.searched
    if job.kind == RANDOM:
        # As many as the search ended with: layers of which nothing was left have one more.
        count = sum(map(len, job.searched.values()))
        subsets = branch_subsets(places, count, count)
        drawn = subsets.sample(stream_seed(job.seed, job.draw))
        return {place.module: [b for b in place.branches if b in drawn[place.module]]
                for place in places}  # fmt: skip
    return {
        place.module: place.branches if job.kind == ALL else ("3x3",) for place in places
    }  # fmt: skip


def train(task: Task, job: Job) -> Row:
    """Train a job's network, merge it, and read the test split once; the result is kept."""
    torch.set_num_threads(1)
    net = create(NET, num_classes=task.num_classes, input_shape=task.input_shape, seed=job.seed)
    chosen = branches_of(job, net)
    model = net
    if chosen is not None:
        net = model = with_only(net, chosen)
    else:
        places = find_places(net)
        count = int(job.share * sum(len(place.branches) for place in places))
        search_seed = stream_seed(job.seed, "search")
        model = BranchNetwork(net, places, count, steps=job.steps, seed=search_seed, rate=job.rate)
    checkpoint = job.file.with_suffix(".safetensors")
    recipe = task.recipe.replace(steps=job.steps, gradient_clip=5.0)
    start = time.process_time()
    trained = fit_model(model, task, recipe, seed=job.seed, checkpoint=checkpoint)
    cpu_s = time.process_time() - start
    recalibrate_batchnorm(model, task.calibration_batches(*CALIBRATION))
    if isinstance(model, BranchNetwork):
        chosen = model.chosen()
        model.eval()(task.example_input())  # gates as they are merged
    assert chosen is not None  # given, or found by now
    merged = deploy(net).eval()
    workload = trace(merged, task.example_input())
    ops = repr([node.op for node in workload.nodes])
    found = {
        "kind": job.kind, "seed": job.seed, "draw": job.draw, "steps": job.steps,
        "val": task.evaluate(merged, "val")[task.metric],
        "test": task.evaluate(merged, "test")[task.metric],
        "chosen": {place: list(names) for place, names in chosen.items()},
        "branches": sum(map(len, chosen.values())),
        "train_macs": trace(net.eval(), task.example_input()).macs,
        "cpu_s_per_step": cpu_s / max(1, job.steps - trained.resumed_at),
        "merged_macs": workload.macs, "merged": hashlib.sha256(ops.encode()).hexdigest()[:12],
    }  # fmt: skip
    write_bytes(job.file, (json.dumps(found) + "\n").encode())
    checkpoint.unlink(missing_ok=True)
    return found


def train_all(task: Task, jobs: Sequence[Job], workers: int) -> list[Row]:
    """Return the results of all jobs, in order; what is kept is not trained again."""
    waiting = [job for job in jobs if not job.file.is_file()]
    with WorkerPool(workers, task) as pool:
        for number, (_, one) in enumerate(pool.map(train, waiting), 1):
            Terminal().progress(
                f"{one['kind']}, seed {one['seed']}: val {one['val']:.4f}, test {one['test']:.4f}"
                f" ({number} of {len(waiting)})"
            )
    return [json.loads(job.file.read_text()) for job in jobs]


def kind_rows(results: Sequence[Row]) -> list[Row]:
    """Return one row per kind: accuracies over seeds and draws, and what a step costs."""
    rows = []
    for kind in (SEARCHED, ANEW, RANDOM, ALL, PLAIN):
        own = [r for r in results if r["kind"] == kind]
        rows.append(
            {"branches": kind, "executed": spread([r["branches"] for r in own]),
             "val %": spread([100 * r["val"] for r in own]),
             "test %": spread([100 * r["test"] for r in own]),
             "trainings": len(own),
             "forward MACs while training": spread([r["train_macs"] for r in own]),
             "CPU ms a step": spread([1e3 * r["cpu_s_per_step"] for r in own])}
        )  # fmt: skip
    return rows


def against(results: Sequence[Row], baseline: str) -> list[Row]:
    """Return by how many points of test accuracy each kind is above a baseline of equal seeds."""

    def mean(kind: str, seed: int) -> float:
        return statistics.fmean(
            100 * r["test"] for r in results if (r["kind"], r["seed"]) == (kind, seed)
        )

    seeds = sorted({r["seed"] for r in results})
    rows = []
    for kind in (SEARCHED, ANEW, RANDOM, ALL, PLAIN):
        if kind != baseline:
            gaps = [mean(kind, seed) - mean(baseline, seed) for seed in seeds]
            rows.append(
                {"branches": kind, f"points above {baseline}": spread(gaps),
                 "seeds above": f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}"}
            )  # fmt: skip
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train everything and compare."""
    flags = parser("RepNAS: searched branches against random, all and none")
    flags.add_argument("--target", default="ethos-u55-128")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--steps", type=int, default=1200, help="of every training")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--randoms", type=int, default=2, help="random subsets of every seed")
    flags.add_argument("--share", type=float, default=0.34, help="of all branches that K is")
    flags.add_argument("--rate", type=float, default=0.01, help="of the logits")
    flags.add_argument("--store", type=Path, default=Path("runs/repnas-alike"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if min(given.steps, given.seeds, given.randoms) < 1 or not 0 < given.share <= 1:
        raise BadInput("--steps, --seeds and --randoms must be positive, --share from 0 to 1")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "workers")}
    report = Report("repnas_alike", kept, given.out)
    task = load_task(given.data)
    folder = given.store / f"{given.data}-{given.steps}-{given.share:g}-{given.rate:g}"

    def jobs(kind: str, draws: int = 1) -> list[Job]:
        return [
            Job(kind, seed, draw, given.steps, given.share, given.rate, folder)
            for seed in range(given.seeds)
            for draw in range(draws)
        ]

    results = train_all(task, [*jobs(SEARCHED), *jobs(ALL), *jobs(PLAIN)], given.workers)
    results += train_all(task, [*jobs(ANEW), *jobs(RANDOM, given.randoms)], given.workers)
    if len({r["merged"] for r in results}) != 1:
        raise ChipfitError("the merged networks differ", "remove the store and train again")
    net = create(NET + ":deploy=true", num_classes=task.num_classes, input_shape=task.input_shape)
    cost = create_target(given.target).cost(trace(net.eval(), task.example_input())).total
    figures = ", ".join(f"{key}={cost[key]:.4g}" for key in ("cycles", "latency_ms") if key in cost)
    report.table(
        f"{NET} on {given.data}, {given.steps} steps each",
        kind_rows(results),
        f"all {len(results)} merged networks have the same operators"
        f" ({results[0]['merged_macs']:,} MACs; {given.target}: {figures})",
    )
    report.table("test accuracy of equal seeds", against(results, RANDOM),
                 "random K: the mean over its draws of that seed")  # fmt: skip
    report.table(
        "branches found, by layer",
        [{"seed": r["seed"], **{place: " ".join(names) for place, names in r["chosen"].items()}}
         for r in results if r["kind"] == SEARCHED],
    )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
