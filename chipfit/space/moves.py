# SPDX-License-Identifier: Apache-2.0
"""Mutation, crossover and neighbourhood of architectures; ties and budgets are kept.

What a budget no longer allows is repaired by single members, taken away or added at random in
choices that were not just changed; where that fails, the budget's choices are drawn anew.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any

from chipfit.errors import BadInput
from chipfit.space.architecture import Architecture
from chipfit.space.decisions import Decisions

#: Kinds of crossover.
UNIFORM, TWO_POINT = "uniform", "two-point"


def mutate(
    decisions: Decisions, architecture: Mapping[str, Any], rng: random.Random, rate: float | None
) -> Architecture:
    """Return an architecture in which decisions went one step.

    A step leads to an option that :meth:`~chipfit.space.choice.Choice.near` names: the next wider
    or narrower where ordered, one member more, less or exchanged where multi-hot, any other option
    else.

    Args:
        decisions: Of the space.
        architecture: One of it.
        rng: Is drawn from.
        rate: Probability of each decision to change. ``None`` changes exactly one, as regularised
            evolution does (Real et al., AAAI 2019, arXiv 1802.01548), and what budgets then ask
            for; the result is then another architecture, if the space has any within one step.

    Raises:
        BadInput: The rate is no probability.
    """
    order = list(range(len(decisions.free)))
    if rate is None:
        rng.shuffle(order)
        for i in order:
            changed = _changed(decisions, architecture, [i], rng)
            if changed != architecture:
                return changed
        return Architecture(architecture)
    if not 0.0 <= rate <= 1.0:
        raise BadInput(f"a mutation rate of {rate}", "give a probability, or None for one change")
    return _changed(decisions, architecture, [i for i in order if rng.random() < rate], rng)


def crossover(
    decisions: Decisions,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    rng: random.Random,
    kind: str = UNIFORM,
) -> Architecture:
    """Return a child of two architectures.

    Args:
        decisions: Of the space.
        first: A parent.
        second: The other.
        rng: Is drawn from.
        kind: ``uniform`` takes every decision from either parent; ``two-point`` takes a stretch of
            neighbouring ones from the second, the rest from the first.

    Raises:
        BadInput: There is no such kind.
    """
    count = len(decisions.free)
    if kind == UNIFORM:
        from_second = [i for i in range(count) if rng.random() < 0.5]
    elif kind == TWO_POINT:
        low, high = sorted(rng.sample(range(count + 1), 2)) if count else (0, 0)
        from_second = list(range(low, high))
    else:
        raise BadInput(f"no crossover is called {kind!r}", f"known: {UNIFORM}, {TWO_POINT}")
    values = dict(first)
    for i in from_second:
        decisions.put(values, i, decisions.taken(i, second))
    _repair(decisions, values, rng, ())
    return Architecture(values)


def neighbours(decisions: Decisions, architecture: Mapping[str, Any]) -> list[Architecture]:
    """Return all architectures in which one decision went one step, in a fixed order.

    Where a budget forbids that step alone, it is joined with one step of another decision of the
    same budget that makes up for it.
    """
    found: dict[Architecture, None] = {}
    for i, decision in enumerate(decisions.free):
        for option in decision.choice.near(decisions.taken(i, architecture)):
            values = dict(architecture)
            decisions.put(values, i, option)
            if decisions.kept(values):
                found[Architecture(values)] = None
                continue
            assert decision.group is not None  # without a budget everything is kept
            for j in decisions.groups[decision.group]:
                if j == i:
                    continue
                for other in decisions.free[j].choice.near(decisions.taken(j, architecture)):
                    both = dict(values)
                    decisions.put(both, j, other)
                    if decisions.kept(both):
                        found[Architecture(both)] = None
    return list(found)


def _changed(
    decisions: Decisions, architecture: Mapping[str, Any], some: list[int], rng: random.Random
) -> Architecture:
    values = dict(architecture)
    for i in some:
        near = decisions.free[i].choice.near(decisions.taken(i, values))
        if near:
            decisions.put(values, i, rng.choice(near))
    _repair(decisions, values, rng, some)
    return Architecture(values)


def _repair(
    decisions: Decisions, values: dict[str, Any], rng: random.Random, spared: Collection[int]
) -> None:
    for g, budget in enumerate(decisions.budgets):
        used = decisions.used(g, values)
        too_many = used > budget.most
        while used > budget.most if too_many else used < budget.least:
            steps = _steps(decisions, values, g, -1 if too_many else 1)
            if not steps:
                break
            elsewhere = [i for i in steps if i not in spared]
            i = rng.choice(elsewhere or list(steps))
            decisions.put(values, i, rng.choice(steps[i]))
            used = decisions.used(g, values)
        if not budget.least <= used <= budget.most:
            decisions.redraw(g, values, rng)


def _steps(
    decisions: Decisions, values: Mapping[str, Any], group: int, direction: int
) -> dict[int, list[Any]]:
    """Return the options, by decision, that take one member more or less."""
    found: dict[int, list[Any]] = {}
    for i in decisions.groups[group]:
        choice, own = decisions.free[i].choice, decisions.taken(i, values)
        options = [o for o in choice.near(own) if choice.count(o) == choice.count(own) + direction]
        if options:
            found[i] = options
    return found
