# SPDX-License-Identifier: Apache-2.0
"""Costs of a network as far as its target allows: unknown operators do not hide the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from chipfit.cost.cost import Cost
from chipfit.cost.table import CostTable
from chipfit.errors import ChipfitError
from chipfit.graph.workload import Program, Workload
from chipfit.targets.base import LayerCost, Refusal, Target


class Deadline:
    """A point in time that work is fitted in before.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self.spent_s >= self.seconds


@dataclass(frozen=True)
class KnownCosts:
    """What is known of a network's cost on a target.

    Args:
        total: Of the whole network; ``None`` where part of it is unknown.
        layers: Of the operators that could be costed.
        refusals: Operators that the target cannot run.
        known: The network without those operators.
        unknown: Why there is no total; ``""`` where there is one.
        left_out: What was not done, and why.
    """

    total: Cost | None
    layers: tuple[LayerCost, ...]
    refusals: tuple[Refusal, ...]
    known: tuple[int, ...]
    unknown: str = ""
    left_out: tuple[str, ...] = ()


def unknown_operators(workload: Workload) -> list[Refusal]:
    """Return the operators that the tracer recorded without understanding them."""
    return [
        Refusal(
            node.name,
            str(node.op.get("aten", node.op.kind)),
            "chipfit does not know this operator, so no target can price it",
        )
        for node in workload.nodes
        if node.op.kind == "unsupported"
    ]


def known_costs(
    program: Program, target: Target, table: CostTable, deadline: Deadline
) -> KnownCosts:
    """Cost a whole network, or the operators of it that the target runs.

    The latter are compiled or measured together, as if the refused ones were inputs and outputs of
    the network; where that fails, each is priced on its own through the cost table.

    Args:
        program: The network.
        target: Prices it.
        table: Keeps the prices of single operators.
        deadline: Ends the pricing of single operators.
    """
    workload = program.workload
    reason = ""
    if not unknown_operators(workload):
        # Asking for refusals first would compile a network twice that has none.
        try:
            found = target.cost(program)
            return KnownCosts(found.total, found.layers, (), tuple(range(len(workload))))
        except ChipfitError as error:
            reason = f"the network cannot be costed as a whole: {error.message}"
    refusals = tuple(target.refusals(workload))
    names = {refusal.name for refusal in refusals}
    kept = tuple(i for i, node in enumerate(workload.nodes) if node.name not in names)
    if refusals:
        reason = f"{target.name} cannot run {len(refusals)} operator(s)"
    if not kept:
        return KnownCosts(None, (), refusals, kept, reason)
    part = workload.part(kept)
    if refusals:
        try:
            return KnownCosts(None, target.cost(part).layers, refusals, kept, reason)
        except ChipfitError:
            pass  # then one by one
    found_alone = _alone(part, target, table, deadline)
    return replace(found_alone, refusals=(*refusals, *found_alone.refusals), unknown=reason)


def _alone(part: Workload, target: Target, table: CostTable, deadline: Deadline) -> KnownCosts:
    layers: list[LayerCost] = []
    refused: list[Refusal] = []
    left_out: tuple[str, ...] = ()
    units = target.units(part)
    for number, unit in enumerate(units):
        if deadline.passed:
            left_out = (f"costs of {len(units) - number} of {len(units)} layers: out of time",)
            break
        nodes = [part.nodes[unit.indices[i]] for i in unit.focus]
        name = nodes[0].name if len(nodes) == 1 else f"{nodes[0].name} .. {nodes[-1].name}"
        kind = "+".join(node.op.kind for node in nodes)
        try:
            cost = table.fill(target, [unit])[0]
        except ChipfitError as error:
            refused.append(Refusal(name, kind, error.message))
            continue
        macs = sum(node.op.macs for node in nodes)
        layers.append(
            LayerCost(name, kind, Cost({**cost.values, "macs": macs}, cost.provenance, cost.spread))
        )
    return KnownCosts(None, tuple(layers), tuple(refused), (), "", left_out)
