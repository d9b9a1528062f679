# SPDX-License-Identifier: Apache-2.0
"""NetAdapt against uniform widths and one-shot magnitude pruning, within the same budget.

    python examples/demo.py --method netadapt --run runs/demo-netadapt
    python -m benchmarks.baselines --run runs/demo-netadapt --seeds 3

Everything comes from a finished run: the trained original, the budget, and the images NetAdapt
spent. Each baseline is the largest network of its kind whose compiled (or measured) cost is within
the budget; it is fine-tuned with the original as teacher for as many images as NetAdapt's member
saw in its own lineage, and again for as many as NetAdapt spent on all its proposals.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.finished import FinishedRun
from benchmarks.narrowing import MagnitudePruning, UniformWidths, largest_within
from benchmarks.output import Report, command, parser, spread
from benchmarks.recovering import RecoverJob, recover
from benchmarks.within import confirmed
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.files import read_state
from chipfit.rewrite.replay import replay
from chipfit.train.jobs import Bench
from chipfit.train.randomness import stream_seed
from chipfit.train.recipe import Recipe
from chipfit.train.recovery import long_recovery
from chipfit.workers import WorkerPool

NETADAPT = "NetAdapt"
ORIGINAL = "original"


@dataclass(frozen=True)
class Contestant:
    """A row of the table before it is fine-tuned.

    Args:
        name: Shown in the table.
        net: With inherited weights.
        recipe: How to fine-tune it.
        before: Images that its weights have already been fine-tuned on.
        how: What distinguishes it.
    """

    name: str
    net: nn.Module
    recipe: Recipe
    before: int = 0
    how: str = ""


def contestants(run: FinishedRun, widths: bool) -> list[Contestant]:
    """Return NetAdapt's member and the baselines, each of these with two lengths of training.

    Args:
        run: The finished run.
        widths: Treat NetAdapt's widths, with the original's weights, as a baseline too.
    """
    member, terminal = run.member_at_budget(), Terminal()
    spent = run.images(member)
    net = replay(run.net, member.edits)
    short = run.run.candidate_folder(member.id) / "short.safetensors"
    net.load_state_dict(read_state(short))
    long = long_recovery(run.recipe, run.run.config["recovery_epochs"])
    found = [Contestant(NETADAPT, net, long, spent["lineage"], member.id)]
    keep = run.run.config["keep"]
    kinds: dict[str, type[UniformWidths] | type[MagnitudePruning]] = {
        "uniform widths": UniformWidths,
        "magnitude pruning": MagnitudePruning,
    }
    plain = [("NetAdapt's widths", replay(run.net, member.edits), member.id)]
    plain = plain if widths else []
    for name, kind in kinds.items():
        ladder = kind(run.net, run.example, run.target.alignment, keep)
        rung = largest_within(ladder, run.within_budget, name)
        rung = confirmed(run.target, run.within_budget, ladder, rung)
        plain.append((name, ladder[rung], ladder.describe(rung)))
        terminal.progress(f"{name}: the largest within {run.budget} is {ladder.describe(rung)}")
    for name, narrow, how in plain:
        for label, images in (("lineage", spent["lineage"]), ("all", spent["proposals"])):
            steps = max(1, round((images + spent["recovery"]) / run.recipe.batch_size))
            found.append(Contestant(f"{name}, {label}", narrow, long.replace(steps=steps), 0, how))
    return found


def jobs_of(
    run: FinishedRun, rows: Sequence[Contestant], seeds: int, folder: Path
) -> list[RecoverJob]:
    """Return the fine-tuning jobs; a seed gives all contestants the same order of the data."""
    return [
        RecoverJob(
            row.name, row.net, row.recipe, stream_seed(run.run.config["seed"], "baselines", seed),
            run.target, folder / str(place) / str(seed),
        )
        for seed in range(seeds)
        for place, row in enumerate(rows)
    ]  # fmt: skip


def fine_tune(
    run: FinishedRun, rows: Sequence[Contestant], seeds: int, workers: int, folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return the results of every contestant, one per seed."""
    jobs = jobs_of(run, rows, seeds, folder)
    found: dict[int, dict[str, Any]] = {}
    terminal = Terminal()
    with WorkerPool(workers, Bench(run.net, run.task)) as pool:
        for at, result in pool.map(recover, jobs):
            found[at] = result
            terminal.progress(
                f"{result['row']}: {result['images']} images, test {result['test']:.4f} "
                f"({len(found)} of {len(jobs)})"
            )
    by_row: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}
    for at in range(len(jobs)):  # in the order of the jobs, whoever was first
        by_row[jobs[at].row].append(found[at])
    return by_row


def measure(run: FinishedRun, results: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Give every result its measured cost, all files in one session; return the original's."""
    flat = [result for own in results.values() for result in own]
    original = run.run.folder / run.original.files["onnx"]
    costs = run.target.cost_many([original, *(result["onnx"] for result in flat)])
    for result, cost in zip(flat, costs[1:], strict=True):
        result["cost"] = dict(cost.total.values)
    return dict(costs[0].total.values)


def table(
    run: FinishedRun, rows: Sequence[Contestant], results: Mapping[str, list[dict[str, Any]]],
    original: Mapping[str, float], statics: Sequence[Mapping[str, float]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the rows of the table, the original first."""
    metric = run.task.metric
    key = run.budget.keys[0]
    metrics = run.original.metrics
    share = run.budget.limits[key] / run.original.cost[key]
    named: list[tuple[str, str, int, list[dict[str, Any]], Mapping[str, float]]] = [
        (row.name, row.how, row.before, results[row.name], static)
        for row, static in zip(rows, statics[1:], strict=True)
    ]
    first = {
        "cost": original, "test": metrics[f"test_{metric}"],
        "int8_test": metrics[f"int8_test_{metric}"], "images": 0,
    }  # fmt: skip
    named.insert(0, (ORIGINAL, "", 0, [first], statics[0]))
    best = spread([r["int8_test"] for r in results[NETADAPT]])["median"]
    made = []
    for name, how, before, own, static in named:
        cost = spread([r["cost"][key] for r in own])
        int8 = spread([r["int8_test"] for r in own])
        line = {
            "network": name, "made by": how, "images": before + own[0]["images"],
            key: cost, "x original": cost["median"] / original[key],
            "x budget": cost["median"] / original[key] / share,
            "MACs": static["macs"], "params": static["params"],
            f"test {metric}": spread([r["test"] for r in own]), f"int8 {metric}": int8,
            "int8 - NetAdapt": int8["median"] - best,
        }  # fmt: skip
        if metric == "accuracy" and best < 1:
            line["errors x NetAdapt"] = (1 - int8["median"]) / (1 - best)
        made.append(line)
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    flags = parser("NetAdapt against plain ways to make a network narrower")
    flags.add_argument("--run", type=Path, default=Path("runs/demo-netadapt"), help="NetAdapt's")
    flags.add_argument("--target", default="", help="with its options, where the run had any")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument(
        "--widths", action="store_true",
        help="also fine-tune NetAdapt's widths from the original's weights, like a baseline",
    )  # fmt: skip
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if given.seeds < 1:
        raise BadInput(f"--seeds {given.seeds} is not positive")
    run = FinishedRun.open(given.run, given.target)
    if run.run.config["method"] != "netadapt":
        raise BadInput(
            f"the run in {given.run} is not NetAdapt's but {run.run.config['method']}'s",
            "python examples/demo.py --method netadapt --run runs/demo-netadapt makes one",
        )
    report = Report(
        "baselines", {"run": str(given.run), "seeds": given.seeds, **_origin(run)}, given.out
    )
    rows = contestants(run, given.widths)
    statics = run.costs([run.net, *(row.net for row in rows)])
    with tempfile.TemporaryDirectory(prefix="chipfit-bench-") as folder:
        results = fine_tune(run, rows, given.seeds, given.workers, Path(folder))
        original: Mapping[str, float] = run.original.cost
        if run.target.provenance == "measured":
            original = measure(run, results)
        lines = table(run, rows, results, original, statics)
    report.table(
        f"within {run.budget} on {run.target.name}, {run.task.name}, {given.seeds} seeds",
        lines,
        "median (min..max) over seeds; images: all that the weights were fine-tuned on since the "
        "original; 'lineage' gets what NetAdapt's member got, 'all' what NetAdapt spent on every "
        "proposal besides. Costs are those of the fine-tuned files: weights change how well they "
        "compress, and measurements vary, so a baseline may end a hair above the budget it was "
        "chosen for. Seeds vary the "
        "long fine-tune; NetAdapt's search itself is that of the run.",
    )
    report.write()
    return 0


def _origin(run: FinishedRun) -> dict[str, Any]:
    names = ("network", "task", "fingerprint", "budget", "seed", "recovery_epochs")
    return {name: run.run.config[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
