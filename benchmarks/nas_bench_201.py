# SPDX-License-Identifier: Apache-2.0
"""Black-box search on the complete table of NAS-Bench-201, and against a true Pareto front.

    python -m benchmarks.nas_bench_201 [--targets ethos-u55-128] [--store runs/nas-bench-201]

Accuracies of all 15 625 cells are those of training; every one of their networks is compiled, so
that the front of accuracy and cycles is the true one. Edges that nothing comes from or leads to
are left out first, which leaves 9 445 networks, about forty minutes of one core. What is compiled
stays in ``--store``: the same command continues where it was stopped. Random search, regularised
evolution, NSGA-II and REINFORCE then look for the best cell, and for the front.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from benchmarks.nas_bench_201_cycles import CycleStore, Figures, live, workload_of
from benchmarks.nas_bench_201_runs import (
    EXPONENTS,
    Settings,
    Table,
    makers,
    regrets,
    run,
    shares,
    towards_front,
)
from benchmarks.output import Report, command, parser, spread
from chipfit.blackbox import non_dominated
from chipfit.blackbox.coding import Coding
from chipfit.cli.console import Terminal
from chipfit.cost.predict import predict_total
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.space import Architecture, SearchSpace
from chipfit.space.nas_bench_201 import EDGES, OPERATIONS, Accuracies, accuracies, cell_space
from chipfit.targets import Target, create

KEY = "cycles"


def noise(cells: Mapping[Architecture, float]) -> str:
    """Return how far accuracies of cells differ that compute the same, where they are high."""
    alike: dict[str, list[float]] = {}
    middle = statistics.median(cells.values())
    for cell, accuracy in cells.items():
        alike.setdefault(live(cell), []).append(accuracy)
    ranges = [max(own) - min(own) for own in alike.values() if len(own) > 1 and min(own) >= middle]
    if not ranges:
        return ""
    return (
        f"{len(ranges)} networks above the median are in the table several times, trained anew:"
        f" their accuracies span {statistics.median(ranges):.2f} points in the median, at most"
        f" {max(ranges):.2f}; smaller regrets are within the noise of training"
    )


def regret_rows(table: Table, settings: Settings, given: Any, say: Any) -> list[dict[str, Any]]:
    """Return one row per strategy: regret in points after so many evaluations, over all seeds."""
    rows = []
    for name, make in makers(settings).items():
        say(f"best cell: {name}")
        found = []
        for seed in range(given.seeds):
            strategy = make(table.sizes, ("max",), seed)
            path = run(strategy, lambda row: (table.accuracy[row],), max(given.evaluations))
            found.append(regrets(table, path, given.evaluations))
        columns = zip(given.evaluations, zip(*found, strict=True), strict=True)
        rows.append({"strategy": name, **{f"after {n}": spread(own) for n, own in columns}})
    return rows


def share_rows(
    table: Table, settings: Settings, given: Any, reference: Sequence[float], say: Any
) -> list[dict[str, Any]]:
    """Return one row per strategy: share of the true front's hypervolume, over all seeds."""
    rows = []
    for name, make in makers(settings).items():
        say(f"front: {name}")
        found = []
        for seed in range(given.seeds):
            path = towards_front(name, make, table, max(given.evaluations), seed)
            found.append(shares(table, path, given.evaluations, reference))
        columns = zip(given.evaluations, zip(*found, strict=True), strict=True)
        rows.append({"strategy": name, **{f"after {n}": spread(own) for n, own in columns}})
    return rows


def prediction_row(
    cells: Sequence[Architecture], figures: Sequence[Figures], target: Target, given: Any, say: Any
) -> dict[str, Any]:
    """Compare the cost table's predictions with what was compiled, on a random sample."""
    drawn = random.Random(given.seed).sample(range(len(cells)), min(given.predict, len(cells)))
    truth, guesses = [], []
    with CostTable(given.store / "units.sqlite") as units:
        for done, i in enumerate(drawn, 1):
            guesses.append(predict_total(workload_of(live(cells[i])), target, units)[KEY])
            truth.append(figures[i][KEY])
            say(f"{target.name}: {done} of {len(drawn)} networks predicted")
    errors = 100 * np.abs(np.array(guesses) / np.array(truth) - 1)
    return {
        "cells": len(drawn), "median error, %": float(np.median(errors)),
        "largest error, %": float(errors.max()),
        "Kendall": float(kendalltau(guesses, truth).statistic),
    }  # fmt: skip


def front_rows(
    table: Table, coding: Coding, figures: Mapping[str, Figures]
) -> list[dict[str, Any]]:
    """Return the true front, cheapest first; of equal points the first."""
    rows = list(table.accuracy)
    kept = [rows[i] for i in non_dominated(table.points(rows))]
    kept.sort(key=lambda row: table.cost[row])
    found: dict[tuple[float, float], dict[str, Any]] = {}
    for row in kept:
        text = live(coding.architecture(row))
        own = figures[text]
        found.setdefault(
            (table.accuracy[row], table.cost[row]),
            {"accuracy %": table.accuracy[row], "kcycles": own[KEY] / 1e3,
             "latency_ms": own["latency_ms"], "cell": text},
        )  # fmt: skip
    return list(found.values())


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Search the table for the best cell, then for the front of each target."""
    flags = parser("black-box search on NAS-Bench-201")
    flags.add_argument("--targets", nargs="*", default=["ethos-u55-128"])
    flags.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 200, 500, 1000])
    flags.add_argument("--seeds", type=int, default=20)
    flags.add_argument("--seed", type=int, default=0, help="of the sample that is predicted")
    flags.add_argument(
        "--accuracy", choices=list(Accuracies.__dataclass_fields__), default="baseline"
    )
    flags.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS),
                       help="fewer leave a smaller, complete space")  # fmt: skip
    flags.add_argument("--corner", type=float, default=80.0,
                       help="accuracy, in %%, from which hypervolume is measured")  # fmt: skip
    flags.add_argument("--predict", type=int, default=60,
                       help="cells that are predicted from the cost table, too")  # fmt: skip
    flags.add_argument("--evolution", type=int, nargs=2, default=[10, 3],
                       help="population and sample of regularised evolution")  # fmt: skip
    flags.add_argument("--population", type=int, default=20, help="of NSGA-II")
    flags.add_argument("--learning-rate", type=float, default=0.05, help="of REINFORCE")
    flags.add_argument("--store", type=Path, default=Path("runs/nas-bench-201"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if given.seeds < 1 or min(given.evaluations) < 1:
        raise BadInput("--seeds and --evaluations must be positive")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "workers")}
    report, say = Report("nas_bench_201", kept, given.out), Terminal().progress
    space: SearchSpace = cell_space().restricted(dict.fromkeys(EDGES, given.operations))
    coding = Coding(space)
    trained = {
        cell: float(getattr(own, given.accuracy))
        for cell, own in accuracies().items()
        if all(cell[edge] in given.operations for edge in EDGES)
    }
    accuracy = {coding.row(cell): value for cell, value in trained.items()}
    table = Table(coding.sizes, accuracy, {})
    settings = Settings(tuple(given.evolution), given.population, given.learning_rate)
    report.table(
        f"regret: points below the best of {len(accuracy):,} cells, {given.seeds} seeds",
        regret_rows(table, settings, given, say),
        f"{given.accuracy} accuracy, the best cell has {max(accuracy.values()):.2f} %; median and"
        f" range over seeds. {noise(trained)}",
    )
    for spec in given.targets:
        target = create(spec)
        cells = list(trained)
        figures = CycleStore(given.store, target).of(cells, given.workers, say)
        by_text = {live(cell): own for cell, own in zip(cells, figures, strict=True)}
        costs = {row: own[KEY] for row, own in zip(accuracy, figures, strict=True)}
        priced = replace(table, cost=costs)
        front = front_rows(priced, coding, by_text)
        report.table(
            f"true front on {spec}: {len(front)} of {len(cells):,} cells", front,
            f"all {len(by_text):,} different networks were compiled; edges that do nothing are"
            " shown as none",
        )  # fmt: skip
        if given.predict:
            report.table(
                f"cycles predicted from the cost table against compiled on {spec}",
                [prediction_row(cells, figures, target, given, say)],
            )
        reference = (given.corner, 1.05 * max(row["kcycles"] for row in front) * 1e3)
        report.table(
            f"hypervolume as a share of the true front's on {spec}, {given.seeds} seeds",
            share_rows(priced, settings, given, reference, say),
            f"measured from {given.corner:g} % and {reference[1] / 1e3:,.0f} kcycles, 5 % above the"
            " dearest cell of the front; compiled cycles. Strategies of one objective share the"
            f" evaluations among rewards accuracy * cycles^w, w = {EXPONENTS}",
        )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
