# SPDX-License-Identifier: Apache-2.0
"""From probabilities of edges to cells whose nodes keep their strongest ones.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, section 2.4.
The paper has no budget; within one, we take the cells of largest total log-probability of the
operations kept, which is the paper's choice wherever that is within the budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput
from chipfit.methods.space_costs import CostFunction, SpaceCosts
from chipfit.methods.space_reach import Figures, best_rows
from chipfit.space.choice import SearchSpace
from chipfit.space.node_rule import NodeRule

Codes = NDArray[np.int64]
Values = NDArray[np.float64]
#: Name of the rule among the bounded figures, and its bound: broken by no edge at all.
_RULE, _BOUND = "edges beyond the rule", 0.5


def strongest(
    space: SearchSpace, probabilities: Sequence[Values], rule: NodeRule
) -> dict[str, str]:
    """Return the paper's choice: of every edge its likeliest operation, of every node its edges.

    Edges are as strong as their likeliest operation other than none; equal ones go to the first.

    Args:
        space: One choice per edge; choices that are no edge of the rule take their likeliest.
        probabilities: By choice, of each option.
        rule: Of the nodes.
    """
    names = [choice.name for choice in space]
    by_name = dict(zip(names, probabilities, strict=True))
    inside = {name for own in rule.nodes for name in own}
    found: dict[str, str] = {}
    for choice in space:
        own = by_name[choice.name].copy()
        if choice.name in inside:
            own[choice.options.index(rule.absent)] = -1.0
        found[choice.name] = choice.options[int(own.argmax())]
    for edges in rule.nodes:
        strength = {
            n: by_name[n][space[n].options.index(found[n])] for n in edges
        }  # fmt: skip
        kept = sorted(edges, key=lambda n: -strength[n])[: rule.edges]
        found |= {n: rule.absent for n in edges if n not in kept}
    return found


def rule_rows(
    costs: SpaceCosts,
    probabilities: Sequence[Values],
    limits: Mapping[str, float],
    rule: NodeRule,
    count: int,
    floor: float,
) -> list[tuple[int, ...]]:
    """Return the architectures that keep the rule, within the limits, the most probable first.

    Args:
        costs: Of the space.
        probabilities: By choice, of each option.
        limits: By key of cost.
        rule: Of the nodes.
        count: Wanted at most.
        floor: As in :func:`~chipfit.methods.space_reach.best_rows`.
    """
    names = [choice.name for choice in costs.space]
    absent = [choice.options.index(rule.absent) if rule.absent in choice.options else -1
              for choice in costs.space]  # fmt: skip
    nodes = [[names.index(name) for name in own] for own in rule.nodes]
    with np.errstate(divide="ignore"):
        scores = [np.log(p) for p in probabilities]
    for columns in nodes:
        for b in columns:
            scores[b][absent[b]] = 0.0

    def broken(codes: Codes) -> Values:
        total = np.zeros(len(codes))
        for columns in nodes:
            present = sum((codes[:, b] != absent[b]).astype(float) for b in columns)
            total += np.abs(present - min(rule.edges, len(columns)))
        return total

    start = costs.row(strongest(costs.space, probabilities, rule))
    figures = _WithRule(costs, broken)
    bounds = {**limits, _RULE: _BOUND}
    rows = [row for row in best_rows(figures, scores, bounds, count, floor)
            if not broken(np.array([row])).any()]  # fmt: skip
    own = np.array([start], np.int64)
    values = {key: float(costs.of(key)(own)[0]) for key in limits}
    first = next(iter(limits), None)
    used = first is None or values[first] >= floor * limits[first]
    if used and start not in rows and all(values[key] <= limits[key] for key in limits):
        rows = [start, *rows[: count - 1]]
    return rows


class _WithRule:
    """Costs of a space, with what breaks its rule as one more."""

    def __init__(self, costs: Figures, broken: CostFunction) -> None:
        self._costs, self._broken = costs, broken

    def of(self, key: str) -> CostFunction:
        return self._broken if key == _RULE else self._costs.of(key)


def rule_within(space: SearchSpace, rule: NodeRule | None) -> NodeRule | None:
    """Return what a rule says about a space that may lack some of its choices, or ``None``.

    A node keeps what it has where an edge of it is no choice of the space.

    Raises:
        BadInput: An edge cannot be left out.
    """
    names = {choice.name for choice in space}
    nodes = tuple(own for own in rule.nodes if names.issuperset(own)) if rule else ()
    if rule is None or not nodes:
        return None
    for name in (n for own in nodes for n in own):
        if rule.absent not in space[name].options:
            raise BadInput(
                f"the network's decode_nodes leaves out edges by {rule.absent!r}, which {name}"
                " does not offer",
                "offer it, or take decode_nodes away",
            )
    return replace(rule, nodes=nodes)
