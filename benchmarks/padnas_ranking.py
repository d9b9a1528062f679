# SPDX-License-Identifier: Apache-2.0
"""PAD-NAS: how well one-shot accuracies order architectures, with and without pruning the space.

    python -m benchmarks.padnas_ranking --store runs/padnas-ranking

Two supernets take the same number of steps from the same weights: one has its space pruned between
phases, the other never. Random architectures of what pruning left, in a band of costs, get the
accuracy that either supernet gives them, and are then trained alone. Kendall's tau-b between the
two accuracies, on the same held-out images, is what pruning is meant to raise.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.alike import train_all
from benchmarks.output import Report, command, parser, spread
from benchmarks.ranking import kendall
from benchmarks.search_alike import KEY, Field
from benchmarks.search_alike_tables import Found
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.files import write_bytes
from chipfit.methods.padnas import PadNAS
from chipfit.methods.space_band import random_in_band
from chipfit.rewrite.replay import rewrite_from_json
from chipfit.runs.run import Run
from chipfit.supernet.supernet import Supernet
from chipfit.targets import create
from chipfit.tasks import load_task
from chipfit.train.batchnorm import recalibrate_batchnorm

#: Phases of the supernets: as long together, with prunings between, or one.
PHASES: Mapping[str, tuple[float, ...]] = {"pruned twice": (3.0, 2.0, 1.0), "not pruned": (1.0,)}
#: Batches and their images that batch norms are re-estimated on.
CALIBRATION = (8, 64)

Row = dict[str, Any]


def trained(field: Field, phases: str, seed: int, folder: Path) -> Supernet:
    """Return the supernet after a search; one that was stopped continues."""
    given = field.given
    options = {
        **PadNAS.defaults, "search_steps": given.search_steps, "batch_size": given.search_batch,
        "phases": PHASES[phases],
    }  # fmt: skip
    run = Run.open(folder / phases.replace(" ", "-"), {"seed": seed, "phases": phases})
    method = PadNAS()
    problem = replace(field.problem, seed=seed, options=options)
    supernet = method.searched(problem, run, replace(method.open_problem(problem), run=run))
    run.close()
    return supernet


def one_shot(field: Field, supernet: Supernet, row: Sequence[int]) -> float:
    """Return the accuracy on held-out images with the weights of a supernet, in per cent."""
    net = supernet.derive(field.problem.net, field.costs.names(row))
    recalibrate_batchnorm(net, field.task.calibration_batches(*CALIBRATION))
    return 100 * field.task.evaluate(net, "val")[field.task.metric]


def judged(field: Field, seed: int, folder: Path) -> list[Row]:
    """Return architectures with the accuracies that both supernets give them; kept in a file."""
    given, file = field.given, folder / "judged.json"
    if not file.is_file():
        supernets = {name: trained(field, name, seed, folder) for name in PHASES}
        pruned = supernets["pruned twice"]
        alive = [pruned.alive[choice.name] for choice in pruned.space]
        low = given.window * field.limit_ms
        rows = random_in_band(field.costs, {KEY: field.limit_ms}, low, given.networks, seed, alive)
        if len(rows) < 3:
            raise BadInput("pruning left too few architectures in the band", "lower --window")
        found = []
        for number, row in enumerate(rows, 1):
            edits = field.costs.block_space.edits(field.costs.names(row))
            entry = {"edits": [edit.to_json() for edit in edits], "left": [*map(len, alive)]}
            found.append(entry | {n: one_shot(field, s, row) for n, s in supernets.items()})
            Terminal().progress(f"seed {seed}: {number} of {len(rows)} architectures judged")
        write_bytes(file, json.dumps(found).encode())
    return list(json.loads(file.read_text()))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train supernets, judge architectures, train them alone, compare the orders."""
    flags = parser("PAD-NAS: ranking of architectures by one-shot accuracy")
    flags.add_argument("--net", default="fbnet_space:size=small")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--target", default="ethos-u55-128")
    flags.add_argument("--search-steps", type=int, default=1200)
    flags.add_argument("--search-batch", type=int, default=32)
    flags.add_argument("--steps", type=int, default=500, help="of every training alone")
    flags.add_argument("--networks", type=int, default=12)
    flags.add_argument("--seeds", type=int, default=2)
    flags.add_argument("--window", type=float, default=0.8, help="lower end of the band")
    flags.add_argument("--table", type=Path)
    flags.add_argument("--store", type=Path, default=Path("runs/padnas-ranking"))
    flags.add_argument("--workers", type=int, default=1)
    given = flags.parse_args(argv)
    if min(given.search_steps, given.steps, given.seeds) < 1 or given.networks < 3:
        raise BadInput("--search-steps, --steps and --seeds must be positive, --networks 3 or more")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "table", "workers")}
    report = Report("padnas_ranking", kept, given.out)
    task = load_task(given.data)
    field = Field(task, create(given.target), given)
    rows, pairs = [], []
    for seed in range(given.seeds):
        folder = field.folder / f"{given.search_steps}-{given.search_batch}-{seed}"
        found = judged(field, seed, folder)
        jobs = [
            field.job(Found(tuple(map(rewrite_from_json, entry["edits"])), field.limit_ms), seed)
            for entry in found
        ]
        alone = [100 * r["val"] for r in train_all(task, [], jobs, given.workers)]
        rows += [
            {"seed": seed, "supernet": name, "architectures": len(found),
             "operations left": sum(found[0]["left"]) if name != "not pruned" else
             sum(len(choice.options) for choice in field.costs.space),
             "one-shot %": spread([entry[name] for entry in found]), "alone %": spread(alone),
             "Kendall": kendall([entry[name] for entry in found], alone)}
            for name in PHASES
        ]  # fmt: skip
        pairs.append(alone)
    field.pool.close()
    report.table(
        f"one-shot against stand-alone accuracy, {task.name}, {given.net}, {given.window:g} to 1"
        f" times {field.limit_ms:.4g} ms on {field.target.name}",
        rows,
        f"{given.search_steps} steps of {given.search_batch} images for a supernet, {given.steps}"
        f" of {task.recipe.batch_size} for a network; held-out images of the training split;"
        f" stand-alone accuracies span {statistics.fmean(max(a) - min(a) for a in pairs):.2f}"
        " points on average",
    )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
