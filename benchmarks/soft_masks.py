# SPDX-License-Identifier: Apache-2.0
"""SMCP's masks: soft, hard or permanent, by a knapsack or greedily, with and without BN scaling.

    python -m benchmarks.soft_masks --store runs/soft-masks

One network is trained per seed; each variant then takes the same number of steps on the same
batches down to the same shares of its latency. ``at once`` masks everything at the start and spends
all steps on recovery. Accuracy is that at the end of the steps, with no recovery after them. What
is finished is kept in the store, so that an interrupted benchmark continues.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alike import AlikeJob, network_of
from benchmarks.output import Report, command, parser, spread
from chipfit.allocate import Allocation
from chipfit.cli.console import Terminal
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.files import write_bytes
from chipfit.graph.capture import trace
from chipfit.methods.base import Problem
from chipfit.methods.smcp import Smcp
from chipfit.methods.space_costs import Codes, Values
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.tasks import Task, load_task
from chipfit.train.jobs import Bench, training_lines
from chipfit.train.loop import fit_model
from chipfit.workers import WorkerPool

Row = dict[str, Any]
BASE, GREEDY = "soft", "soft, greedy"
#: Options of the method by variant.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    BASE: {},
    "hard": {"mode": "hard"},
    "permanent": {"mode": "permanent"},
    "at once": {"mode": "hard", "warmup": 0.0, "cooldown": 0.99},
    GREEDY: {},
    "soft, no BN scaling": {"scaling": "none"},
    "soft, absolute importance": {"importance": "absolute"},
}


def greedy(
    values: list[Values], cost_of: Callable[[Codes], Values], budgets: list[float],
    start: Sequence[int],
) -> Allocation:  # fmt: skip
    """Narrow one group by one width at a time, always where the least value is lost per cost."""
    began = time.perf_counter()
    row = np.array([len(own) - 1 for own in values])
    limits = np.array(budgets)
    while True:
        tries = np.array([row - one for one in np.eye(len(row), dtype=int)])
        possible = [i for i, one in enumerate(tries) if one[i] >= 0]
        costs = cost_of(np.concatenate([row[None], tries[possible]]).astype(np.int64))
        excess = np.maximum(costs / limits - 1.0, 0.0).sum(1)
        if not excess[0]:
            break
        if not possible:
            raise InfeasibleBudget("the narrowest network is over the budget")
        lost = np.array([values[i][row[i]] - values[i][row[i] - 1] for i in possible])
        gained = np.maximum(excess[0] - excess[1:], 1e-12)
        row = tries[possible[int(np.argmin(lost / gained))]]
    total = float(sum(own[i] for own, i in zip(values, row, strict=True)))
    return Allocation(
        tuple(int(i) for i in row), total, tuple(map(float, costs[0])), 1.0, "feasible",
        time.perf_counter() - began,
    )  # fmt: skip


class GreedySmcp(Smcp):
    """The method with another solver."""

    solver = staticmethod(greedy)


class Bed:
    """A trained network of one seed, and what pruning it costs.

    Args:
        task: Data.
        target: The device.
        seed: Of the weights and of all batches.
        given: The arguments.
    """

    def __init__(self, task: Task, target: Target, seed: int, given: Any) -> None:
        self.task, self.given, self.seed = task, given, seed
        self.folder = Path(given.store) / given.data / given.net.replace("/", "-") / str(seed)
        recipe = task.recipe.replace(steps=given.original_steps or None)
        net = network_of(AlikeJob(given.net, recipe, seed, self.folder), task)
        self.folder.mkdir(parents=True, exist_ok=True)
        fit_model(
            net, task, recipe, seed=seed,
            checkpoint=self.folder / f"original-{given.original_steps}.safetensors",
            on_progress=training_lines(f"original, seed {seed}", Terminal().progress),
        )  # fmt: skip
        example = task.example_input()
        cost = target.cost(trace(net, example)).total
        self.pool = WorkerPool(given.workers, Bench(net, task))
        self.problem = Problem(
            net=net, example=example, task=task, target=target, pool=self.pool, seed=seed,
            table=CostTable(given.table or Path(given.store) / "costs.sqlite"),
            budget=Budget({given.key: cost[given.key]}), progress=Terminal().progress,
            original=Candidate(ORIGINAL, cost=dict(cost.values), provenance=cost.provenance),
        )  # fmt: skip

    def original_test(self) -> float:
        """Return the test metric of the network before pruning, in per cent."""
        return 100 * self.task.evaluate(self.problem.net, "test")[self.task.metric]

    def pruned(self, variant: str, share: float) -> Row | None:
        """Return what a variant ends with; ``None`` where the share is out of reach."""
        given = self.given
        method = GreedySmcp() if variant == GREEDY else Smcp()
        options = {
            **Smcp.defaults, "search_steps": given.steps, "every": given.every,
            **VARIANTS[variant],
        }  # fmt: skip
        name = f"{given.original_steps}-{given.steps}-{given.every}-{given.target}-{given.key}"
        folder = self.folder / name / f"{variant.replace(', ', '-').replace(' ', '-')}-{share:g}"
        file = folder / "result.json"
        if not file.is_file():
            limit = share * self.problem.original_cost[given.key]
            asked = replace(self.problem, budget=Budget({given.key: limit}), options=options)
            try:
                method.check(asked)
            except InfeasibleBudget:
                return None
            run = Run.open(folder, {"variant": variant, "seed": self.seed, "options": options})
            started = time.process_time()
            member = list(method.search(asked, run))[-1]
            done = run.recall("smcp/step/1") or {}
            net = member.build(self.problem.net, run.folder)
            run.close()
            write_bytes(file, json.dumps({
                "test": 100 * self.task.evaluate(net, "test")[self.task.metric],
                "val": 100 * member.metrics[self.problem.val_metric],
                "revived": done["revived"], "channels": done["width"],
                "cost": member.predicted[given.key] / self.problem.original_cost[given.key],
                "cpu_s": time.process_time() - started,
            }).encode())  # fmt: skip
        return dict(json.loads(file.read_text()))


def rows_of(found: Mapping[tuple[str, float, int], Row | None], given: Any) -> list[Row]:
    """Return one row per share and variant, with the differences to the paper's own seed by seed.

    Args:
        found: By variant, share and seed.
        given: The arguments.
    """
    rows = []
    for share in given.shares:
        for variant in VARIANTS:
            runs = [found[variant, share, seed] for seed in range(given.seeds)]
            base = [found[BASE, share, seed] for seed in range(given.seeds)]
            row: Row = {"share": share, "variant": variant}
            if any(one is None for one in (*runs, *base)):
                columns = ("cost", "test %", f"to {BASE}", "seeds below", "revived", "CPU s")
                rows.append({**row, **dict.fromkeys(columns)})
                continue
            behind = [a["test"] - b["test"] for a, b in zip(runs, base, strict=True)]  # type: ignore[index]
            rows.append({
                **row, "cost": statistics.fmean(one["cost"] for one in runs),  # type: ignore[index]
                "test %": spread([one["test"] for one in runs]),  # type: ignore[index]
                f"to {BASE}": None if variant == BASE else statistics.fmean(behind),
                "seeds below": None if variant == BASE else sum(d < 0 for d in behind),
                "revived": spread([one["revived"] for one in runs]),  # type: ignore[index]
                "CPU s": statistics.fmean(one["cpu_s"] for one in runs),  # type: ignore[index]
            })  # fmt: skip
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train originals, prune them in every way, compare."""
    flags = parser("SMCP: masks, allocation and scaling of batch norms, at equal steps")
    flags.add_argument("--net", default="tiny_mobilenet_v2")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--target", default="ethos-u55-128")
    flags.add_argument("--key", default="latency_ms")
    flags.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.5, 0.3])
    flags.add_argument("--original-steps", type=int, default=0, help="0: the recipe's epochs")
    flags.add_argument("--steps", type=int, default=400, help="of every pruning")
    flags.add_argument("--every", type=int, default=10, help="steps between two rewirings")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--table", type=Path)
    flags.add_argument("--store", type=Path, default=Path("runs/soft-masks"))
    flags.add_argument("--workers", type=int, default=1)
    given = flags.parse_args(argv)
    if min(given.steps, given.every, given.seeds) < 1 or not all(0 < s <= 1 for s in given.shares):
        raise BadInput("--steps, --every and --seeds must be positive, --shares above 0, at most 1")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "table", "workers")}
    report = Report("soft_masks", kept, given.out)
    task, target = load_task(given.data), create(given.target)
    found: dict[tuple[str, float, int], Row | None] = {}
    originals = []
    for seed in range(given.seeds):
        bed = Bed(task, target, seed, given)
        originals.append(bed.original_test())
        for share in given.shares:
            for variant in VARIANTS:
                found[variant, share, seed] = bed.pruned(variant, share)
                Terminal().progress(
                    f"seed {seed}, {share:g}, {variant}: {found[variant, share, seed]}"
                )
        bed.pool.close()
    report.table(
        f"{given.net} on {task.name} at shares of its {given.key} on {target.name}, "
        f"{given.steps} steps",
        rows_of(found, given),
        f"originals: {statistics.fmean(originals):.2f} % on average; {given.seeds} seeds; 'seeds"
        " below' of them are worse than soft masks on the same batches; revived channels count"
        " each return",
    )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
