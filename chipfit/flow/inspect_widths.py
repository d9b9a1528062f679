# SPDX-License-Identifier: Apache-2.0
"""Widths of a network that a target dislikes: curves of cost against channel count."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chipfit.cost.curve import WidthCurve, curve_of, sample_widths, touched_units
from chipfit.cost.fill import CHUNK, fill
from chipfit.cost.table import CostTable
from chipfit.errors import ChipfitError
from chipfit.flow.inspect_costs import Deadline
from chipfit.graph.channels import ChannelGroup
from chipfit.graph.resize import Unresizable, resize
from chipfit.graph.workload import Workload
from chipfit.space.widths import width_step
from chipfit.targets.base import Target, Unit
from chipfit.targets.measured import MeasuredTarget
from chipfit.workers import WorkerPool

#: The multiple that widths are compared with where no target is given.
COMMON_ALIGNMENT = 8
#: Points of a curve: compilers and models are quick, measurements are not.
POINTS, MEASURED_POINTS = 19, 9
#: Below this many prices, starting processes costs more than it saves.
_POOL_FROM = 150
#: A wider layer has to be cheaper by this share to be worth telling.
_WORTH = 0.005


class _OutOfTime(Exception):
    """Raised between two batches of prices; finished ones are in the table."""


@dataclass(frozen=True)
class WidthPlan:
    """The units that one curve needs.

    Args:
        group: Its channels.
        operators: The operators that its width changes.
        units: By width, the most telling width first.
    """

    group: ChannelGroup
    operators: tuple[str, ...]
    units: Mapping[int, Sequence[Unit]]

    @property
    def wanted(self) -> list[Unit]:
        """All units, those of the most telling width first."""
        return [unit for own in self.units.values() for unit in own]


def width_curves(
    workload: Workload, known: Sequence[int], groups: Sequence[ChannelGroup],
    sizes: Mapping[tuple[str, str], int], target: Target, table: CostTable,
    layer_ms: Mapping[str, float], deadline: Deadline, progress: Callable[[str], None],
) -> tuple[list[WidthCurve], list[str]]:  # fmt: skip
    """Price the widths of all channel groups, the dearest first, until the time is up.

    Args:
        workload: The network.
        known: Indices of the operators that the target runs.
        groups: Its channel groups.
        sizes: Length of each module's side, from ``chipfit.rewrite.slice.side_sizes``.
        target: Prices the operators.
        table: Where prices are looked up and kept.
        layer_ms: Latency of each operator, by name; decides which groups are dearest.
        deadline: Ends it.
        progress: Called with a line now and then.

    Returns:
        The curves in the order they were priced, and what was left out with the reason.
    """
    plans: list[WidthPlan] = []
    left_out: list[str] = []
    for group in groups:
        try:
            plans.append(_plan(workload, known, group, sizes, target))
        except Unresizable as error:
            if not group.frozen:
                left_out.append(
                    f"curve of {group.name}: what its width changes cannot be inferred ({error})"
                )
    plans.sort(key=lambda plan: -sum(layer_ms.get(name, 0.0) for name in plan.operators))
    pricing = _Pricing(target, table, deadline, progress)
    try:
        pricing.price([unit for plan in plans for unit in plan.wanted])
    except _OutOfTime:
        pass  # what is there is drawn
    except ChipfitError:
        for plan in plans:  # one failure must not hide the other curves
            try:
                pricing.price(plan.wanted)
            except _OutOfTime:
                break
            except ChipfitError as error:
                left_out.append(f"curve of {plan.group.name}: {error.message}")
    curves, short = [], 0
    for plan in plans:
        curve = _curve(plan, target, table)
        curves += [curve] if curve else []
        short += curve is None or len(curve.channels) < len(plan.units)
    if short and deadline.passed:
        left_out.append(
            f"curves of {short} of {len(plans)} widths, in full or in part: out of time "
            f"({deadline.seconds:g} s); the dearest came first"
        )
    return curves, left_out


class _Pricing:
    """Fills the table until the time is up."""

    def __init__(
        self, target: Target, table: CostTable, deadline: Deadline,
        progress: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._target, self._table, self._deadline = _brief(target), table, deadline
        self._progress = progress
        #: A measured target pairs a whole chunk in one session; others stop after any unit.
        measured = target.provenance == "measured"
        self._chunk = CHUNK if measured else 1
        #: A chunk that would take as long as the last one is not begun when the time is short.
        self._ahead = 1.0 if measured else 0.0

    def price(self, units: Sequence[Unit]) -> None:
        """Price ``units`` in their order; raises ``_OutOfTime`` or what a unit raises."""
        last_s = self._deadline.spent_s

        def stop(done: int, of: int) -> None:
            nonlocal last_s
            now_s = self._deadline.spent_s
            another_s = (now_s - last_s) * self._ahead
            last_s = now_s
            if done % 50 == 0 or done == of:
                self._progress(f"priced {done} of {of} widths")
            if done < of and now_s + another_s > self._deadline.seconds:
                raise _OutOfTime

        if self._deadline.passed:
            raise _OutOfTime
        with WorkerPool(os.cpu_count() or 1) as workers:
            many = workers.count > 1 and len(units) >= _POOL_FROM
            fill(self._table, self._target, units, workers if many else None, stop, self._chunk)


def _brief(target: Target) -> Target:
    """Return the target with less effort per measurement: many points tell more than exact ones.

    The spread of each point tells what that costs, and cliffs have to stand out from it.
    """
    if not isinstance(target, MeasuredTarget):
        return target
    quick = copy.copy(target)
    rounds = min(target.protocol.min_rounds, 10)
    quick.protocol = replace(
        target.protocol, min_rounds=rounds, sessions=min(target.protocol.sessions, 2),
        max_rounds=min(target.protocol.max_rounds, 2 * rounds),
    )  # fmt: skip
    return quick


def _plan(
    workload: Workload, known: Sequence[int], group: ChannelGroup,
    sizes: Mapping[tuple[str, str], int], target: Target,
) -> WidthPlan:  # fmt: skip
    points = MEASURED_POINTS if target.provenance == "measured" else POINTS
    widths = sample_widths(group.channels, width_step(group, target.alignment), points)
    whole = len(known) == len(workload)
    variants = {width: _at(workload, group, width, sizes) for width in widths}
    if not whole:
        variants = {width: variant.part(known) for width, variant in variants.items()}
    present = workload if whole else workload.part(known)
    operators, units = touched_units(present, variants, target)
    if not operators:
        raise Unresizable("no operator that the target runs depends on it")
    return WidthPlan(group, operators, units)


def _at(
    workload: Workload, group: ChannelGroup, width: int, sizes: Mapping[tuple[str, str], int]
) -> Workload:
    """Return the network with one group at another width."""
    if width == group.channels:
        return workload
    sides: dict[str, int] = {}
    for member in group.members:
        if member.side != "in":
            size = sides.get(member.module, sizes[member.module, member.side])
            sides[member.module] = size + (width - group.channels) * len(member.index[0])
    return resize(workload, sides)


def _curve(plan: WidthPlan, target: Target, table: CostTable) -> WidthCurve | None:
    keys = {unit.key for own in plan.units.values() for unit in own}
    known = table.get_many(target.fingerprint, keys)
    group = plan.group
    return curve_of(group.name, group.channels, plan.operators, plan.units, known)


def misaligned(
    groups: Sequence[ChannelGroup], curves: Sequence[WidthCurve], alignment: int
) -> list[dict[str, Any]]:
    """Return the widths that the target dislikes, with the nearest better ones.

    A width is disliked where its layers are no multiple of ``alignment``, or where its curve tells
    that a wider layer is cheaper.

    Returns:
        Per width ``name``, ``channels``, ``alignment`` (in channels of the group), ``reason``,
        ``frozen`` and ``better``: widths with ``latency_ms_change``, the difference to the present
        latency, or ``None``.
    """
    by_name = {curve.layer: curve for curve in curves}
    found = []
    for group in groups:
        curve = by_name.get(group.name)
        now_ms = curve.at(group.channels) if curve else None
        step = width_step(group, alignment)
        lower = group.channels // step * step
        better = [width for width in (lower, lower + step) if width > 0]
        reason = f"not a multiple of {step}"
        if group.channels % step == 0:
            better = []
            if curve is not None and now_ms is not None:
                better = [
                    width
                    for width, cost_ms in zip(curve.channels, curve.latency_ms, strict=True)
                    if width > group.channels and cost_ms < now_ms * (1 - _WORTH)
                ]
            reason = "a wider layer costs less"
        if better:
            found.append({
                "name": group.name, "channels": group.channels, "alignment": step,
                "reason": reason, "frozen": group.frozen or None,
                "better": [{"channels": width, "latency_ms_change": _change(curve, width, now_ms)}
                           for width in better],
            })  # fmt: skip
    return found


def _change(curve: WidthCurve | None, width: int, now_ms: float | None) -> float | None:
    then_ms = curve.at(width) if curve is not None else None
    return None if then_ms is None or now_ms is None else then_ms - now_ms
