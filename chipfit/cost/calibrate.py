# SPDX-License-Identifier: Apache-2.0
"""One factor that turns sums of unit latencies into whole-network latencies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from chipfit.cost.predict import predict_many
from chipfit.cost.table import CALIBRATION, CostTable
from chipfit.errors import BadInput
from chipfit.graph.workload import Workload
from chipfit.targets.base import Target


@dataclass(frozen=True)
class Calibration:
    """A fitted factor and how well it does.

    Args:
        factor: Whole-network latency divided by the sum over units, median over networks.
        whole_ms: Latency of each network as a whole.
        units_ms: Sum of unit latencies of each network, uncorrected.
    """

    factor: float
    whole_ms: tuple[float, ...]
    units_ms: tuple[float, ...]

    @property
    def error(self) -> float:
        """Largest relative error over the networks, each with the factor of all the *others*.

        With a single network there is nothing to hold out, and this raises ``BadInput``.
        """
        ratios = [w / u for w, u in zip(self.whole_ms, self.units_ms, strict=True)]
        if len(ratios) < 2:
            raise BadInput("one network cannot tell the error of its own calibration")
        held_out = [statistics.median(ratios[:i] + ratios[i + 1 :]) for i in range(len(ratios))]
        return max(abs(f / r - 1) for f, r in zip(held_out, ratios, strict=True))


def calibrate(target: Target, workloads: Sequence[Workload], table: CostTable) -> Calibration:
    """Fit the factor on whole networks and store it in ``table``.

    Units measured on their own pay for layout conversions at their ends that a whole network does
    not pay, so their sum is too high by a factor that is much the same for all networks of a kind.
    Predictions from this table use the stored factor from then on.

    Args:
        target: Measures whole networks and units.
        workloads: Networks like those that will be predicted; at least one, better five.
        table: Gets absent units and the factor.

    Raises:
        BadInput: No workload is given, or the target reports no latency.
    """
    if not workloads:
        raise BadInput("calibration needs at least one network")
    table.anchor(target)
    sums = predict_many(workloads, target, table, calibration=1.0)
    whole = target.cost_many(workloads)
    whole_ms = tuple(cost.total["latency_ms"] for cost in whole)
    units_ms = tuple(cost.total["latency_ms"] for cost in sums)
    factor = statistics.median(w / u for w, u in zip(whole_ms, units_ms, strict=True))
    table.set_facts(target.fingerprint, {CALIBRATION: factor}, replace=True)
    return Calibration(factor, whole_ms, units_ms)
