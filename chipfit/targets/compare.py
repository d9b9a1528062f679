# SPDX-License-Identifier: Apache-2.0
"""Comparing networks on one target: ratios with intervals, and what the noise was meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chipfit.errors import BadInput
from chipfit.graph.workload import Program, Workload
from chipfit.targets.base import Target
from chipfit.targets.measured import MeasuredTarget
from chipfit.targets.timing import Protocol, Run, Sampler, paired_ratios

#: Two measured networks that are closer than this are never told apart.
LEAST_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Comparison:
    """The time of a network divided by the first one's.

    Args:
        ratio: Below 1 where this network is faster than the first.
        low: Lower end of the 95 % interval.
        high: Upper end.
        noise: How far from 1 the first network, timed against itself in the same session, may lie
            (the farther end of that A/A pair's interval); 0 where nothing is measured.
    """

    ratio: float
    low: float
    high: float
    noise: float = 0.0

    @property
    def verdict(self) -> str:
        """``"faster"``, ``"slower"`` or ``"indistinguishable"`` from the first.

        Indistinguishable is what differs by no more than the noise or 2 %, or where the interval
        covers 1. Figures that are not measured differ wherever they are not equal.
        """
        if self.noise == 0.0 and self.low == self.high:
            reach = 0.0
        else:
            reach = max(LEAST_DIFFERENCE, self.noise)
        if self.low <= 1.0 <= self.high or abs(self.ratio - 1.0) <= reach:
            return "indistinguishable"
        return "faster" if self.ratio < 1.0 else "slower"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {
            "ratio": self.ratio, "low": self.low, "high": self.high, "noise": self.noise,
            "verdict": self.verdict,
        }  # fmt: skip


def compare(target: Target, networks: Sequence[Workload | Program | Path]) -> list[Comparison]:
    """Compare networks with the first of them.

    Measuring targets run all of them in one interleaved session with the first as the reference,
    and the first once more against itself for the noise. Others compare exactly.

    Args:
        target: Where they run.
        networks: At least one; the first is what the others are divided by.

    Returns:
        One comparison per network, in order. The first is the A/A pair where there is one.

    Raises:
        BadInput: No network is given, or the target tells no latency.
        UnsupportedOp: An operator cannot run.
    """
    if not networks:
        raise BadInput("there is nothing to compare")
    if isinstance(target, MeasuredTarget):
        makers = target.makers(networks)
        with target.settings():
            return compare_runs(makers, target.protocol, target.sampler)
    totals = [cost.total for cost in target.cost_many(networks)]
    if "latency_ms" not in totals[0]:
        raise BadInput(
            f"{target.name} tells no latency to compare by", "chipfit targets lists those that do"
        )
    ratios = [total["latency_ms"] / totals[0]["latency_ms"] for total in totals]
    return [Comparison(ratio, ratio, ratio) for ratio in ratios]


def compare_runs(
    makers: Sequence[Callable[[], Run]], protocol: Protocol, sampler: Sampler
) -> list[Comparison]:
    """Compare what ``makers`` make with the first of them, in one interleaved session.

    The first is among the subjects, too: fresh instances of it against others are the A/A pair.
    """
    again, *others = paired_ratios(makers, makers[0], protocol, sampler)
    noise = max(abs(again.low - 1.0), abs(again.high - 1.0))
    return [Comparison(ratio.value, ratio.low, ratio.high, noise) for ratio in (again, *others)]
