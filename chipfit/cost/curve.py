# SPDX-License-Identifier: Apache-2.0
"""Cost against channel count, and the cliffs in it: widths that a device dislikes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.graph.workload import Workload
from chipfit.targets.base import Target, Unit

#: A rise of this share by one channel, or a fall of this share by more channels, is a cliff.
CLIFF = 0.05


@dataclass(frozen=True)
class Cliff:
    """A step in a cost curve.

    Args:
        channels: Width before the step.
        to: The next width that was priced: one channel more where the cost rises.
        factor: Cost at ``to`` divided by the cost at ``channels``; below 1 where more channels
            cost less.
    """

    channels: int
    to: int
    factor: float

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {"channels": self.channels, "to": self.to, "factor": self.factor}


def find_cliffs(
    channels: Sequence[int],
    costs: Sequence[float],
    spreads: Sequence[float] | None = None,
    threshold: float = CLIFF,
) -> list[Cliff]:
    """Return the steps where one more channel costs more, or more channels cost less.

    A rise over several channels is no cliff, for it may be the price of those channels.

    >>> find_cliffs([7, 8, 9, 16], [1.0, 1.0, 1.5, 1.5])
    [Cliff(channels=8, to=9, factor=1.5)]

    Args:
        channels: Widths, ascending.
        costs: Cost of each, positive.
        spreads: Half-width of each cost's 95 % interval, same unit; steps within the two together
            are not counted.
        threshold: Least relative change that counts.
    """
    spreads = spreads or [0.0] * len(channels)
    cliffs = []
    for i in range(len(channels) - 1):
        low, high = costs[i], costs[i + 1]
        if low <= 0 or abs(high - low) <= math.hypot(spreads[i], spreads[i + 1]):
            continue
        factor = high / low
        rises = factor > 1 + threshold and channels[i + 1] == channels[i] + 1
        if rises or factor < 1 - threshold:
            cliffs.append(Cliff(channels[i], channels[i + 1], factor))
    return cliffs


@dataclass(frozen=True)
class WidthCurve:
    """What the operators that a width touches cost, at several widths.

    Args:
        layer: The first layer that makes the channels.
        present: The network's own width.
        channels: Widths, ascending.
        latency_ms: Sum over all operators whose shape depends on the width.
        spread_ms: Half-widths of the 95 % intervals; zeros where nothing was measured.
        operators: Those operators' names.
    """

    layer: str
    present: int
    channels: tuple[int, ...]
    latency_ms: tuple[float, ...]
    spread_ms: tuple[float, ...]
    operators: tuple[str, ...] = field(default=())

    @property
    def cliffs(self) -> list[Cliff]:
        """Return the cliffs among the widths."""
        return find_cliffs(self.channels, self.latency_ms, self.spread_ms)

    def at(self, channels: int) -> float | None:
        """Return the latency at a width in milliseconds, or ``None`` where it was not priced."""
        if channels not in self.channels:
            return None
        return self.latency_ms[self.channels.index(channels)]

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit inspect --json`` prints."""
        return {
            "layer": self.layer, "present": self.present, "channels": list(self.channels),
            "latency_ms": list(self.latency_ms), "spread_ms": list(self.spread_ms),
            "cliffs": [cliff.to_json() for cliff in self.cliffs],
            "operators": list(self.operators),
        }  # fmt: skip


def sample_widths(present: int, alignment: int, points: int) -> list[int]:
    """Return the widths worth pricing, the most telling first.

    The present width comes first, then aligned widths with their two neighbours, from the present
    width outwards: down to half of it and one step above. Where there are more of those than
    ``points``, the far ones are thinned out to multiples of 2, 4 ... alignments.

    Args:
        present: The network's own width.
        alignment: The device's channel multiple; at least 1.
        points: How many at most.
    """
    step = max(alignment, 1)
    above = step * (present // step + 1)
    near = [above - step, above]
    aligned = [width for width in range(above - 2 * step, present // 2 - 1, -step) if width > 0]
    room = max(1, (points - 7) // 3)
    if len(aligned) > room:
        coarse = step * math.ceil(len(aligned) / room)
        aligned = [width for width in aligned if width % coarse == 0]
    found = [present]
    for width in near + aligned:
        found += [width, width + 1, width - 1]
    return list(dict.fromkeys(width for width in found if width > 0))[:points]


def touched_units(
    present: Workload, variants: Mapping[int, Workload], target: Target
) -> tuple[tuple[str, ...], dict[int, list[Unit]]]:
    """Return the operators that a width changes, and for each width the units that charge them.

    The units stand at the same places for every width, so that their sums compare.

    Args:
        present: The network.
        variants: The network by width; the same operators in the same order.
        target: Cuts the networks into units.
    """
    moved = {
        i
        for variant in variants.values()
        for i, (node, other) in enumerate(zip(present.nodes, variant.nodes, strict=True))
        if node.op != other.op
    }
    cut = {width: target.units(variant) for width, variant in variants.items()}
    # Where a target cuts a narrower network differently, only a cut that all share compares.
    places = {tuple(_charged(unit) for unit in units) for units in cut.values()}
    if len(places) != 1:
        return (), {}
    chosen = [i for i, own in enumerate(next(iter(places))) if moved & set(own)]
    names = tuple(present.nodes[i].name for i in sorted(moved))
    found = {width: [units[i] for i in chosen] for width, units in cut.items()}
    if target.provenance != "modelled":  # a model's price is cheaper than a larger unit
        found = {width: [joined(units)] if units else [] for width, units in found.items()}
    return names, found


def _charged(unit: Unit) -> tuple[int, ...]:
    return tuple(unit.indices[i] for i in unit.focus)


def joined(units: Sequence[Unit]) -> Unit:
    """Return one unit that charges all operators of ``units``: windows that overlap, once.

    It is compiled or measured in one run, with more of its surroundings than each unit alone had.
    """
    source = units[0].source
    indices = sorted({i for unit in units for i in unit.indices})
    charged = {i for unit in units for i in _charged(unit)}
    focus = tuple(place for place, i in enumerate(indices) if i in charged)
    text = f"{source.part(indices).key}:{focus}"
    key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return Unit(key, source, tuple(indices), focus)


def curve_of(
    layer: str,
    present: int,
    operators: Iterable[str],
    units: Mapping[int, Sequence[Unit]],
    known: Mapping[str, Cost],
) -> WidthCurve | None:
    """Add up a curve from priced units; ``None`` where fewer than two widths are known.

    Args:
        layer: The first layer that makes the channels.
        present: The network's own width.
        operators: Names of the operators that the width changes.
        units: From :func:`touched_units`.
        known: Prices by unit key; a width with an absent one, or one without latency, is left out.
    """
    points = []
    for width in sorted(units):
        costs = [known.get(unit.key) for unit in units[width]]
        priced = [cost for cost in costs if cost is not None and "latency_ms" in cost]
        if costs and len(priced) == len(costs):
            latency_ms = sum(cost["latency_ms"] for cost in priced)
            spread_ms = math.hypot(*(cost.spread.get("latency_ms", 0.0) for cost in priced))
            points.append((width, latency_ms, spread_ms))
    if len(points) < 2:
        return None
    channels, latencies, spreads = zip(*points, strict=True)
    return WidthCurve(layer, present, channels, latencies, spreads, tuple(operators))
