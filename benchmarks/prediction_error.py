# SPDX-License-Identifier: Apache-2.0
"""Prediction error on random networks of families that nothing was calibrated on.

    python -m benchmarks.prediction_error --targets ethos-u55-128 onnxruntime-cpu

Per target: the cost table's prediction, MACs with one factor (fitted on the networks that the table
is calibrated with) and the plain sum of operators priced alone, all against the whole networks,
compiled or measured; then the same inside a band of equal MACs, where MACs tell nothing. Truth and
tables are kept in ``--store``: the same command continues where it was stopped.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.output import Report, command, parser
from benchmarks.random_networks import (
    FAMILIES,
    Recipe,
    equal_macs_networks,
    random_networks,
    workload_of,
)
from benchmarks.ranking import kendall, spearman
from benchmarks.truth import KEY, Truth
from benchmarks.vectorised import vectorised_row
from chipfit.cli.console import Terminal
from chipfit.cost.predict import predict_many, predict_total
from chipfit.cost.table import CostTable
from chipfit.flow.calibration import calibration_networks, ensure_calibrated
from chipfit.graph.workload import Workload
from chipfit.targets import Target, create
from chipfit.targets.base import NetworkCost
from chipfit.targets.timing import Protocol
from chipfit.targets.windows import single_units

#: Units are measured with less effort than networks: errors of some twenty of them even out.
UNIT_PROTOCOL = Protocol(min_rounds=12, max_rounds=24, sessions=2)
#: Networks of a group whose operators are priced alone; all would take longer than the rest.
ISOLATED = 5
QUERIES = 300
#: Rows of the table that were written further apart belong to different runs.
PAUSE_S = 60.0


def error_row(
    target: Target, group: str, predictor: str, guess: Sequence[float], truth: Sequence[float]
) -> dict[str, Any]:
    """Return the errors of one predictor on one group of networks."""
    off = [100 * (g / t - 1) for g, t in zip(guess, truth, strict=True)]
    return {
        "target": target.name, "networks": group, "n": len(off), "predictor": predictor,
        "MAPE %": statistics.mean(map(abs, off)), "worst %": max(map(abs, off)),
        "bias %": statistics.mean(off), "Spearman": spearman(guess, truth),
        "Kendall": kendall(guess, truth),
    }  # fmt: skip


class Judge:
    """Costs all networks of one target in every way.

    Args:
        name: Of the target.
        folder: Keeps the truth and the table.
        random: Recipes of random networks.
        band: Recipes of networks with equal MACs.
    """

    def __init__(
        self, name: str, folder: Path, random: Sequence[Recipe], band: Sequence[Recipe]
    ) -> None:
        self.target = create(name)
        self.label = name
        self.npu = self.target.file_format == "tflite"
        self.recipes = [*random, *band]
        self.groups = {"all": list(range(len(random)))}
        for family in FAMILIES:
            own = [i for i, r in enumerate(random) if r.family == family]
            if own:
                self.groups[family] = own
        if band:
            self.groups["equal MACs"] = list(range(len(random), len(self.recipes)))
        self.workloads = [workload_of(recipe, self.npu) for recipe in self.recipes]
        self.table = CostTable(folder / "costs.sqlite")
        self.table.anchor(self.target)
        self.truth = Truth(folder, self.target)
        self.say = Terminal().progress

    def run(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the rows of errors and the row of times."""
        self.say(f"{self.label}: whole networks")
        truth = self.truth.of(self.workloads, self.say)
        calibrating = calibration_networks(self.target)
        factor = statistics.median(
            t.latency_ms / w.macs
            for w, t in zip(calibrating, self.truth.of(calibrating, self.say), strict=True)
        )
        if hasattr(self.target, "protocol"):
            self.target.protocol = UNIT_PROTOCOL
        start = time.perf_counter()
        ensure_calibrated(self.target, self.table, self.say)
        calibration_s = time.perf_counter() - start
        build_s, units, new = self._fill()  # seconds of all fills, this one and earlier ones
        predicted = predict_many(self.workloads, self.target, self.table)
        isolated = self._isolated()
        whole_ms = [t.latency_ms for t in truth]
        rows = []
        for group, members in self.groups.items():
            guesses: dict[str, list[tuple[int, float]]] = {
                "chipfit": [(i, predicted[i].total[KEY]) for i in members],
                "MACs x one factor": [(i, factor * self.workloads[i].macs) for i in members],
                "isolated operators": [(i, isolated[i]) for i in members if i in isolated],
            }
            for predictor, pairs in guesses.items():
                if pairs:
                    own = [whole_ms[i] for i, _ in pairs]
                    row = error_row(self.target, group, predictor, [g for _, g in pairs], own)
                    row["target"] = self.label
                    noise = [truth[i].half_width_ms / whole_ms[i] * 100 for i, _ in pairs]
                    row["truth's own +- %"] = statistics.median(noise) if max(noise) else None
                    row["inside estimate %"] = (
                        self._inside(predicted, whole_ms, members)
                        if predictor == "chipfit" else None
                    )  # fmt: skip
                    rows.append(row)
        times: dict[str, Any] = {
            "target": self.label, "networks": len(self.workloads), "units": units,
            "units priced now": new, "units/s": units / build_s if build_s else None,
            "table built in s": build_s,
            "calibrated in s": calibration_s if calibration_s > 1 else None,
            "A/A spread %": self._noise(), "queries/s": self._query_rate(),
        }  # fmt: skip
        return rows, times

    def _fill(self) -> tuple[float, int, int]:
        units = {u.key: u for w in self.workloads for u in self.target.units(w)}
        known = self.table.get_many(self.target.fingerprint, units)

        def progress(done: int, total: int) -> None:
            if done % 80 == 0 or done == total:
                self.say(f"{self.label}: {done} of {total} units")

        self.table.fill(self.target, list(units.values()), on_progress=progress)
        written = sorted(
            created
            for _, key, _, _, created in self.table.rows(self.target.fingerprint)
            if key in units
        )
        # Between two starts of the benchmark there is a pause, which is no time of building.
        gaps = [later - earlier for earlier, later in pairwise(written)]
        seconds = sum(gap for gap in gaps if gap < PAUSE_S)
        return seconds, len(units), len(units) - len(known)

    def _isolated(self) -> dict[int, float]:
        """Return the sums of operators priced alone, of some networks of every group."""
        chosen = [i for own in self.groups.values() for i in own[:: -(-len(own) // ISOLATED)]]
        self.say(f"{self.label}: operators alone")
        cut = {i: single_units(self.workloads[i]) for i in dict.fromkeys(chosen)}
        costs = {}
        units = {u.key: u for own in cut.values() for u in own}
        for unit, cost in zip(
            units.values(), self.table.fill(self.target, list(units.values())), strict=True
        ):
            costs[unit.key] = cost[KEY]
        return {i: sum(costs[u.key] for u in own) for i, own in cut.items()}

    def _inside(
        self, predicted: Sequence[NetworkCost], whole: Sequence[float], members: Sequence[int]
    ) -> float | None:
        if KEY not in predicted[0].total.spread:
            return None
        hits = [
            abs(predicted[i].total[KEY] - whole[i]) <= predicted[i].total.spread[KEY]
            for i in members
        ]
        return 100 * sum(hits) / len(hits)

    def _query_rate(self) -> float:
        for workload in self.workloads:
            predict_total(workload, self.target, self.table)
        start = time.process_time()
        for i in range(QUERIES):
            # A new object, as a search makes it.
            asked: Workload = replace(self.workloads[i % len(self.workloads)])
            predict_total(asked, self.target, self.table)
        return QUERIES / (time.process_time() - start)

    def _noise(self) -> float | None:
        noise = getattr(self.target, "noise", None)
        return None if noise is None else 100 * noise()


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Judge every target."""
    flags = parser("errors of predicted latencies on random networks")
    flags.add_argument(
        "--targets", nargs="+", default=["ethos-u55-128", "ethos-u55-256", "ethos-u65-256",
                                         "ethos-u65-512", "ethos-u85-256", "onnxruntime-cpu"],
    )  # fmt: skip
    flags.add_argument("--networks", type=int, default=15, help="of each of the four families")
    flags.add_argument(
        "--measured", type=int, help="the same where networks are measured, which takes longer"
    )
    flags.add_argument("--band", type=int, default=8, help="of each family, with equal MACs")
    flags.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    flags.add_argument("--store", type=Path, default=Path("runs/prediction_error"))
    flags.add_argument("--rows", type=int, default=200_000, help="of the vectorised query, or 0")
    given = flags.parse_args(argv)
    settings = {key: value for key, value in vars(given).items() if key not in ("out", "store")}
    report = Report("prediction_error", settings, given.out)
    errors, times, fast = [], [], []
    for name in given.targets:
        target = create(name)
        npu = target.file_format == "tflite"
        count = given.networks
        if given.measured is not None and target.provenance == "measured":
            count = given.measured
        judge = Judge(
            name, given.store, random_networks(count, given.families),
            equal_macs_networks(given.band, npu, given.families),
        )  # fmt: skip
        rows, own = judge.run()
        errors += rows
        times.append(own)
        if given.rows:
            fast.append(vectorised_row(judge.target, judge.table, given.rows, judge.say))
    note = (
        "error: prediction / whole network - 1. MACs x one factor: the factor is fitted on the"
        " calibration networks. inside estimate: networks whose truth lies within the half-width"
        " that the prediction states. truth's own: half of the 95 % interval of the measured truth;"
        " smaller errors mean nothing. Ethos-U: ConvNeXt-like networks have batch norm and ReLU in"
        " place of layer norm and GELU."
    )
    report.table("error of predicted latency", errors, note)
    report.table(
        "table build time and queries", times,
        "units/s: by one process, on the clock of the wall; queries/s: CPU time, filled table.",
    )  # fmt: skip
    if fast:
        report.table("vectorised queries of one search space", fast)
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
