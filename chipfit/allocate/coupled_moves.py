# SPDX-License-Identifier: Apache-2.0
"""Moves on true costs: repair into the budgets, then climb, by one group or two at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.coupled_problem import CoupledProblem

#: Moves of one group that pairs are made of.
PAIRED = 400
#: Step of the guessed excess, as a share of the budgets, in which pairs are sorted.
NEARLY = 0.02
#: Steps of a repair or a climb, far more than any needs.
STEPS = 500


def repair_coupled(problem: CoupledProblem, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Move until every budget is kept; ``None`` where no move of two groups helps any more.

    Each move takes away the most excess for the value that it gives up.
    """
    for _ in range(STEPS):
        excess = float(problem.excess(problem.costs(rows[None]))[0])
        if not excess:
            return rows
        changed = problem.changed(rows)
        gain = problem.value - problem.value[rows][problem.group]
        moved = _most_excess_away(rows, problem, changed, gain, excess)
        if moved is None:
            moved = _pair_less_excess(rows, problem, changed, gain, excess)
        if moved is None:
            return None
        rows = moved
    return None


def climb_coupled(problem: CoupledProblem, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Raise the value by moves of one group, or of two at once, within the true budgets."""
    for _ in range(STEPS):
        if problem.late():
            return rows
        changed = problem.changed(rows)
        gain = problem.value - problem.value[rows][problem.group]
        fits = (changed <= problem.budgets).all(axis=1) & (gain > 0)
        if fits.any():
            best = int(np.argmax(np.where(fits, gain, -np.inf)))
            rows = rows.copy()
            rows[problem.group[best]] = best
            continue
        moved = _best_pair(rows, problem, changed, gain)
        if moved is None or problem.total(moved) <= problem.total(rows):
            return rows
        rows = moved
    return rows


def _most_excess_away(
    rows: NDArray[np.int64], problem: CoupledProblem, changed: NDArray[np.float64],
    gain: NDArray[np.float64], excess: float,
) -> NDArray[np.int64] | None:  # fmt: skip
    away = excess - problem.excess(changed)
    helps = away > 1e-12 * excess
    if not helps.any():
        return None
    ratio = np.where(helps, away / np.maximum(-gain, 1e-100), -1.0)
    best = np.lexsort((np.arange(len(away)), -away, -ratio))[0]
    rows = rows.copy()
    rows[problem.group[best]] = best
    return rows


def _pair_less_excess(
    rows: NDArray[np.int64], problem: CoupledProblem, changed: NDArray[np.float64],
    gain: NDArray[np.float64], excess: float,
) -> NDArray[np.int64] | None:  # fmt: skip
    # What costs least alone comes first; among equals what loses least.
    near = np.lexsort((-gain, problem.excess(changed)))[:PAIRED]
    first, second = np.triu_indices(len(near), 1)
    first, second = near[first], near[second]
    apart = problem.group[first] != problem.group[second]
    first, second = first[apart][: 4 * problem.pairs], second[apart][: 4 * problem.pairs]
    if not len(first):
        return None
    moved = _both(rows, problem, first, second)
    away = excess - problem.excess(problem.costs(moved))
    best = int(np.argmax(away))
    return moved[best] if away[best] > 1e-12 * excess else None


def _best_pair(
    rows: NDArray[np.int64], problem: CoupledProblem, changed: NDArray[np.float64],
    gain: NDArray[np.float64],
) -> NDArray[np.int64] | None:  # fmt: skip
    base = problem.costs(rows[None])[0]
    alone = problem.excess(changed)
    # A pair is a move that gains and does not fit alone, with one that makes room for it.
    up = np.flatnonzero(gain > 0)
    up = up[np.lexsort((-gain[up], alone[up]))][:PAIRED]
    down = np.flatnonzero(problem.option[rows][problem.group] != problem.option)
    down = down[np.argsort(-gain[down], kind="stable")][: 4 * PAIRED]
    first, second = (index.reshape(-1) for index in np.meshgrid(up, down, indexing="ij"))
    both = gain[first] + gain[second]
    useful = (problem.group[first] != problem.group[second]) & (both > 0)
    first, second, both = first[useful], second[useful], both[useful]
    if not len(first):
        return None
    guess = changed[first] + changed[second] - base
    guess[:, problem.maximum] = np.minimum(changed[first], changed[second])[:, problem.maximum]
    over = problem.excess(guess)
    # Those that seem to fit first, the most valuable ahead; then those that nearly do.
    order = np.lexsort((-both, np.ceil(over / NEARLY)))[: problem.pairs]
    moved = _both(rows, problem, first[order], second[order])
    fits = (problem.costs(moved) <= problem.budgets).all(axis=1)
    if not fits.any():
        return None
    return moved[int(np.argmax(np.where(fits, both[order], -np.inf)))]


def _both(
    rows: NDArray[np.int64], problem: CoupledProblem, first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> NDArray[np.int64]:  # fmt: skip
    moved = np.tile(rows, (len(first), 1))
    each = np.arange(len(first))
    moved[each, problem.group[first]] = first
    moved[each, problem.group[second]] = second
    return moved
