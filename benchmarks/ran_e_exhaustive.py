# SPDX-License-Identifier: Apache-2.0
"""RAN-e's search against training all 64 patterns of a network with six gates.

    python -m benchmarks.ran_e_exhaustive --store runs/ran-e-exhaustive

Six inverted bottlenecks, each kept or collapsed to one dense convolution: all 64 patterns are
trained alike from scratch (same recipe, images and seed) and compiled. Then ``chipfit fit
--method ran-e`` decides, at three budgets and with three seeds, and its patterns are looked up
among the 64. Results are kept in the store, so that an interrupted benchmark continues.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.alike import AlikeJob, options_of, train_all
from benchmarks.output import Report, command, parser, percentile, spread
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.flow.fit import fit
from chipfit.rewrite.replay import Rewrite
from chipfit.rewrite.swap import Swap
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.tasks import Task, load_task

GATES = 6
KEPT, LINEAR = "i3x4", "c"
SKELETON = "skeleton=six_28,activation=relu6,dropout=0.0"
#: Budgets: the latency that this share of all patterns does not exceed, in percent.
PERCENTILES = (25, 50, 75)

Row = dict[str, Any]
Gates = tuple[bool, ...]


@dataclass(frozen=True)
class Outcome:
    """A pattern trained and compiled.

    Args:
        gates: Whether each block is linear.
        latency_ms: Of its int8 file.
        cycles: Of its int8 file.
        val: Validation accuracy, a fraction.
        int8_test: Test accuracy of the int8 file, a fraction.
    """

    gates: Gates
    latency_ms: float
    cycles: float
    val: float
    int8_test: float


def spec_of(gates: Gates) -> str:
    """Return the network of a pattern by name."""
    parts = "_".join(LINEAR if linear else KEPT for linear in gates)
    return f"ran_e:pattern={parts},{SKELETON}"


def text_of(gates: Gates) -> str:
    """Return a pattern as ``kkLkLL``: kept or linear, block by block."""
    return "".join("L" if linear else "k" for linear in gates)


def gates_of(edits: Sequence[Rewrite]) -> Gates:
    """Return which blocks a candidate's edits collapse.

    Raises:
        BadInput: Something else was done to the network.
    """
    linear = [False] * GATES
    for edit in edits:
        pieces = edit.module.split(".") if isinstance(edit, Swap) else []
        if pieces[:1] != ["blocks"] or len(pieces) != 2 or edit.block != "pre_activation_conv":  # type: ignore[union-attr]
            raise BadInput(f"an edit of this run collapses no block: {edit}")
        linear[int(pieces[1])] = True
    return tuple(linear)


def front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the patterns of which none that costs no more is as accurate, cheapest first."""
    found: list[Outcome] = []
    for one in sorted(outcomes, key=lambda o: (o.cycles, -o.int8_test)):
        if not found or one.int8_test > found[-1].int8_test:
            found.append(one)
    return found


def below_front(one: Outcome, outcomes: Sequence[Outcome]) -> float:
    """Return by how much the most accurate pattern of no more cycles is better, in points."""
    return 100 * (max(o.int8_test for o in outcomes if o.cycles <= one.cycles) - one.int8_test)


def rank(one: Outcome, outcomes: Sequence[Outcome], limit_ms: float) -> tuple[int, int]:
    """Return the place of a pattern among those within a budget, 1 is best, and their number."""
    within = [o for o in outcomes if o.latency_ms <= limit_ms]
    return 1 + sum(o.int8_test > one.int8_test for o in within), len(within)


def decided(
    task: Task, target: Target, limit_ms: float, seed: int, given: Any, folder: Path
) -> tuple[Candidate | None, int]:
    """Let ran-e decide within a budget.

    Returns:
        The member of its family that is within the budget and has the best validation accuracy, or
        ``None`` where it found none, and the number of members.
    """
    epochs = given.steps * task.recipe.batch_size / len(task.train_indices)  # type: ignore[attr-defined]
    try:
        fit(
            spec_of((False,) * GATES), target, {"latency_ms": limit_ms}, task.name, run=folder,
            method="ran-e", method_options={"refine": False, **options_of(given.option)},
            seed=seed, epochs=epochs, recovery_epochs=epochs, members=3, workers=given.workers,
            progress=Terminal().progress,
        )  # fmt: skip
    except InfeasibleBudget as error:
        Terminal().progress(f"{folder.name}: {error}")
    members = [c for c in Run.read(folder).candidates() if c.id != ORIGINAL]
    within = [c for c in members if c.cost.get("latency_ms", limit_ms + 1) <= limit_ms]
    best = max(within, key=lambda c: c.metrics["val_accuracy"], default=None)
    return best, len(members)


def choice_row(
    outcomes: Mapping[Gates, Outcome], candidate: Candidate | None, limit_ms: float, seed: int
) -> Row:
    """Return what ran-e chose, as the exhaustive training judges it."""
    row: Row = {"budget, ms": limit_ms, "seed": seed}
    if candidate is None:
        return {**row, "pattern": "nothing within the budget"}
    every = list(outcomes.values())
    gates = gates_of(candidate.edits)
    if gates not in outcomes:
        return {**row, "pattern": f"{text_of(gates)}, not among those trained"}
    one = outcomes[gates]
    place, among = rank(one, every, limit_ms)
    best = max((o for o in every if o.latency_ms <= limit_ms), key=lambda o: o.int8_test)
    return {
        **row, "pattern": text_of(one.gates), "kcycles": one.cycles / 1e3,
        "int8 test %, trained alike": 100 * one.int8_test,
        "below front, points": below_front(one, every),
        "below best within, points": 100 * (best.int8_test - one.int8_test),
        "rank": f"{place} of {among}", "best within": text_of(best.gates),
        "int8 test %, ran-e's own": 100 * candidate.metrics["int8_test_accuracy"],
    }  # fmt: skip


def exhaustive(
    task: Task, target: Target, given: Any
) -> tuple[dict[Gates, Outcome], dict[str, list[float]]]:
    """Train all patterns, and some with further seeds.

    Returns:
        Outcomes by pattern, means over ``--seeds``, and int8 test accuracies of those repeated.
    """
    recipe = task.recipe.replace(steps=given.steps)
    patterns = list(itertools.product((False, True), repeat=GATES))[: given.patterns]
    repeated = [(False,) * GATES, (True,) * GATES]

    def job(gates: Gates, seed: int) -> AlikeJob:
        return AlikeJob(spec_of(gates), recipe, seed, _folder(given, gates))

    todo = [(gates, seed) for seed in range(given.seeds) for gates in patterns]
    extra = range(given.seeds, given.seeds + given.repeats)
    todo += [(gates, seed) for gates in repeated for seed in extra if gates in patterns]
    results = train_all(task, [target], [job(*one) for one in todo], given.workers)
    found: dict[Gates, list[dict[str, Any]]] = {}
    spreads: dict[str, list[float]] = {}
    for (gates, seed), result in zip(todo, results, strict=True):
        if seed < given.seeds:
            found.setdefault(gates, []).append(result)
        if gates in repeated:
            spreads.setdefault(text_of(gates), []).append(100 * result["int8_test"])
    return {gates: _outcome(gates, own, target) for gates, own in found.items()}, spreads


def _outcome(gates: Gates, results: Sequence[Mapping[str, Any]], target: Target) -> Outcome:
    return Outcome(
        gates, results[0]["latency_ms"][target.spec], results[0]["cycles"][target.spec],
        statistics.fmean(r["val"] for r in results),
        statistics.fmean(r["int8_test"] for r in results),
    )  # fmt: skip


def _folder(given: Any, gates: Gates) -> Path:
    return Path(given.store) / f"{given.data}-{given.steps}" / text_of(gates)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train everything, let ran-e decide, and compare."""
    flags = parser("RAN-e's search against all 64 patterns")
    flags.add_argument("--target", default="ethos-u55-128")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--steps", type=int, default=350, help="of every training, 128 images each")
    flags.add_argument("--seeds", type=int, default=1, help="of the exhaustive training; means")
    flags.add_argument("--repeats", type=int, default=2, help="further seeds of two patterns")
    flags.add_argument("--search-seeds", type=int, default=3)
    flags.add_argument("--budgets", nargs="*", type=int, default=list(PERCENTILES))
    flags.add_argument("--option", action="append", default=[], help="of ran-e, name=value")
    flags.add_argument("--patterns", type=int, default=2**GATES, help="fewer only to try it out")
    flags.add_argument("--store", type=Path, default=Path("runs/ran-e-exhaustive"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if given.steps < 1 or given.seeds < 1 or not 0 < given.patterns <= 2**GATES:
        raise BadInput("--steps and --seeds must be positive, --patterns between 1 and 64")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "workers")}
    report = Report("ran_e_exhaustive", kept, given.out)
    task, target = load_task(given.data), create(given.target)
    outcomes, spreads = exhaustive(task, target, given)
    every = list(outcomes.values())
    on_front = front(every)
    report.table(
        f"front of all {len(every)} patterns on {target.name}, {given.data}",
        [
            {"pattern": text_of(o.gates), "kcycles": o.cycles / 1e3, "latency_ms": o.latency_ms,
             "int8 test %": 100 * o.int8_test, "val %": 100 * o.val}
            for o in on_front
        ],
        f"k: kept, L: linear; every pattern was trained for {given.steps} steps from scratch",
    )  # fmt: skip
    report.table(
        "what a seed is worth",
        [{"pattern": name, "int8 test %": spread(own)} for name, own in spreads.items()],
    )
    rows = []
    for percent in given.budgets:
        limit_ms = percentile([o.latency_ms for o in every], percent)
        for seed in range(given.search_seeds):
            folder = Path(given.store) / f"{given.data}-{given.steps}" / f"ran-e-{percent}-{seed}"
            candidate, _ = decided(task, target, limit_ms, seed, given, folder)
            rows.append(choice_row(outcomes, candidate, limit_ms, seed))
    if rows:
        widest = max(rows, key=len)
        report.table(
            "what ran-e chose, judged by the exhaustive training",
            [{**dict.fromkeys(widest), **row} for row in rows],
            "below front: the most accurate pattern of no more cycles against the chosen one;"
            " below best within: the most accurate within the budget",
        )
    report.table(
        "all patterns",
        [
            {"pattern": text_of(o.gates), "kcycles": o.cycles / 1e3, "int8 test %":
             100 * o.int8_test, "val %": 100 * o.val, "below front": below_front(o, every)}
            for o in sorted(every, key=lambda o: o.cycles)
        ],
    )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
