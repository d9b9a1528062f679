# SPDX-License-Identifier: Apache-2.0
"""Predictions of whole networks, judged by what the networks really cost.

The cost table is compared with two plainer predictors: MACs times one factor, and the sum of
operators priced in isolation. Their factors are fitted on the very networks they are judged by,
which is generous to them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.finished import FinishedRun
from benchmarks.variants import width_variants
from chipfit.cost.calibrate import calibrate
from chipfit.cost.predict import predict_many
from chipfit.cost.table import CostTable
from chipfit.graph.capture import trace
from chipfit.graph.workload import Workload
from chipfit.rewrite.replay import replay
from chipfit.targets import Target
from chipfit.targets.windows import single_units

KEY = "latency_ms"
#: Other variants that a measured target's factor is fitted on.
CALIBRATION_NETWORKS = 4


@dataclass(frozen=True)
class Judged:
    """Networks with their true cost.

    Args:
        name: Of the set.
        workloads: The networks.
        truth_ms: Latency of each as a whole.
        predicted_ms: Latency of each from the table.
        whole_s: Seconds that it took to compile or measure one as a whole.
    """

    name: str
    workloads: Sequence[Workload]
    truth_ms: Sequence[float]
    predicted_ms: Sequence[float]
    whole_s: Sequence[float] = ()


def judge_variants(text: str, target: Target, table: CostTable, count: int) -> Judged:
    """Cost random width variants as wholes and from the table."""
    workloads = width_variants(text, target.alignment, count)
    factor = 1.0
    if target.provenance == "measured":
        others = width_variants(text, target.alignment, CALIBRATION_NETWORKS, first_seed=10**6)
        factor = calibrate(target, others, table).factor
    predicted = predict_many(workloads, target, table, factor)
    # A measured target compares networks fairly within one session only.
    batches = [workloads] if target.provenance == "measured" else [[w] for w in workloads]
    truth, seconds = [], []
    for batch in batches:
        start = time.perf_counter()
        truth += [cost.total[KEY] for cost in target.cost_many(batch)]
        seconds.append((time.perf_counter() - start) / len(batch))
    return Judged(text, workloads, truth, [p.total[KEY] for p in predicted], seconds)


def judge_run(run: FinishedRun) -> Judged:
    """Take what a run predicted for its members and what their files cost."""
    members = [c for c in run.run.candidates() if KEY in c.predicted and KEY in c.cost]
    workloads = [trace(replay(run.net, c.edits), run.example) for c in members]
    return Judged(
        f"members of {run.run.folder}", workloads, [c.cost[KEY] for c in members],
        [c.predicted[KEY] for c in members],
    )  # fmt: skip


def accuracy_rows(judged: Judged, target: Target) -> list[dict[str, Any]]:
    """Return the errors of every predictor on a set of networks, the table's first."""
    alone = [single_units(workload) for workload in judged.workloads]
    units = list({unit.key: unit for own in alone for unit in own}.values())
    with CostTable() as scratch:
        costs = dict(zip((u.key for u in units), scratch.fill(target, units), strict=True))
    isolated = [sum(costs[unit.key][KEY] for unit in own) for own in alone]
    macs = [float(workload.macs) for workload in judged.workloads]
    guesses = {
        "cost table": list(judged.predicted_ms),
        "isolated operators": isolated,
        "isolated operators x one factor": _fitted(isolated, judged.truth_ms),
        "MACs x one factor": _fitted(macs, judged.truth_ms),
    }
    rows: list[dict[str, Any]] = []
    for name, guess in guesses.items():
        off = [g / t - 1 for g, t in zip(guess, judged.truth_ms, strict=True)]
        sizes = [abs(error) for error in off]
        mape = statistics.mean(sizes)
        rows.append({
            "networks": judged.name, "count": len(off), "target": target.name, "predictor": name,
            "MAPE %": 100 * mape, "worst %": 100 * max(sizes), "bias %": 100 * statistics.mean(off),
        })  # fmt: skip
    for row in rows:
        row["x MACs' MAPE"] = row["MAPE %"] / rows[-1]["MAPE %"] if rows[-1]["MAPE %"] else None
    return rows


def _fitted(guesses: Sequence[float], truth: Sequence[float]) -> list[float]:
    factor = statistics.median(t / g for t, g in zip(truth, guesses, strict=True))
    return [guess * factor for guess in guesses]
