# SPDX-License-Identifier: Apache-2.0
"""What LANA may choose in a network on a device, and which options are worth training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate import Allocation, solve_coupled, solve_diverse
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.methods.base import Problem
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text
from chipfit.methods.space_costs import SpaceCosts, costs_of
from chipfit.space.blocks import KEEP, BlockSpace, space_of
from chipfit.space.replacements import KINDS, Pool, replacement_space, with_keep

Codes = NDArray[np.int64]
Values = NDArray[np.float64]
#: Architectures that tell whether costs of choices add up.
SAMPLES = 64
#: For each solution; far more than is needed, as an answer that depends on the time differs from
#: run to run.
TIME_LIMIT_S = 600.0
#: Keys whose figure is the largest of several places.
LARGEST = ("peak_sram_bytes",)
#: Options of the method that say what is offered.
OFFERED: Mapping[str, Any] = {
    "blocks": "", "kinds": tuple(KINDS), "kernels": (3, 5), "expansions": (2.0, 4.0),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A problem with its space and costs.

    Args:
        costs: Of every architecture; the first operation of each choice keeps the block.
        useful: By choice, the indices of the operations that save something that is bounded, each
            alone; index 0 first.
        additive: Whether the costs of choices add up, for every bounded figure.
    """

    costs: SpaceCosts
    useful: tuple[tuple[int, ...], ...]
    additive: bool

    @property
    def blocks(self) -> BlockSpace:
        """The choices."""
        return self.costs.block_space

    def pool(self) -> dict[str, list[str]]:
        """Return by choice the names of the operations worth training."""
        return {
            c.name: [c.operations[i].name for i in own[1:]]
            for c, own in zip(self.blocks, self.useful, strict=True)
        }

    def values(self, increases: Mapping[str, Mapping[str, float]]) -> list[Values]:
        """Return scores for the solver, higher is better.

        Args:
            increases: By choice and operation, how much the loss rises; what is not there, or is
                infinite, is forbidden.
        """
        found = []
        for choice in self.blocks:
            own = increases[choice.name]
            worth = [0.0 if o.name == KEEP else -own.get(o.name, np.inf)
                     for o in choice.operations]  # fmt: skip
            found.append(np.array(worth))
        return found

    def no_values(self) -> list[Values]:
        """Return scores of 0 for what is worth training; all else is forbidden."""
        found = []
        for choice, own in zip(self.blocks, self.useful, strict=True):
            worth = np.full(len(choice.operations), -np.inf)
            worth[list(own)] = 0.0
            found.append(worth)
        return found

    def choose(
        self, values: Sequence[Values], limits: Mapping[str, float], count: int = 1,
        overlap: float = 0.7, time_limit_s: float = TIME_LIMIT_S,
    ) -> list[Allocation]:  # fmt: skip
        """Return architectures of highest total score within the limits, the best first.

        Where costs add up, each is the optimum of an integer programme (equation and overlap cuts
        as in the paper's phase 2); where a price depends on neighbours, of programmes linearised
        around one another, and the true cost is within the limits.

        Args:
            values: By choice, of each operation.
            limits: By key of cost.
            count: Wanted at most.
            overlap: Largest share of choices that two of them may have in common.
            time_limit_s: For each of them.

        Raises:
            InfeasibleBudget: Nothing is within the limits.
        """
        keys = list(limits)
        budgets = [limits[key] for key in keys]
        if self.additive:
            found = solve_diverse(
                values, [self._table(key) for key in keys], budgets, count, overlap,
                time_limit_s=time_limit_s, names=keys,
            )  # fmt: skip
            inside = [a for a in found if self._within(a.choice, limits)]
            if inside:
                return inside
        return self._coupled(values, keys, budgets, count, overlap, time_limit_s)

    def _coupled(
        self, values: Sequence[Values], keys: Sequence[str], budgets: Sequence[float], count: int,
        overlap: float, time_limit_s: float,
    ) -> list[Allocation]:  # fmt: skip
        functions = [self.costs.of(key) for key in keys]
        alike = min(int(overlap * len(values) + 1e-9), len(values) - 1)
        found: list[Allocation] = []

        def cost_of(codes: Codes) -> Values:
            shared = [(codes == np.array(one.choice)).sum(axis=1) for one in found]
            return np.stack([*(f(codes) for f in functions), *shared], axis=1).astype(np.float64)

        largest = [i for i, key in enumerate(keys) if key in LARGEST]
        while len(found) < count:
            names = [
                *keys,
                *(f"choices in common with solution {i + 1}" for i in range(len(found))),
            ]
            try:
                one = solve_coupled(
                    values, cost_of, [*budgets, *[float(alike)] * len(found)], maximum=largest,
                    time_limit_s=time_limit_s, names=names,
                )  # fmt: skip
            except InfeasibleBudget:
                if found:
                    break
                raise
            found.append(one)
        return found

    def _within(self, row: Sequence[int], limits: Mapping[str, float]) -> bool:
        codes = np.array([row], np.int64)
        return all(float(self.costs.of(key)(codes)[0]) <= v for key, v in limits.items())

    def _table(self, key: str) -> list[Values]:
        """Return costs by choice and operation; the first choice carries the original's."""
        base, tables = additions(self.costs, key)
        return [tables[0] + base, *tables[1:]]


def additions(costs: SpaceCosts, key: str) -> tuple[float, list[Values]]:
    """Return the cost of the first architecture, and what each operation alone adds to it."""
    sizes = [len(choice.options) for choice in costs.space]
    rows = np.zeros((sum(sizes), len(sizes)), np.int64)
    at = 0
    for c, size in enumerate(sizes):
        rows[at : at + size, c] = range(size)
        at += size
    figures = costs.of(key)(rows)
    base = float(figures[0])
    return base, np.split(figures - base, np.cumsum(sizes)[:-1])


def open_plan(problem: Problem, settings: Mapping[str, Any]) -> Plan:
    """Find blocks and price what could stand for them.

    Raises:
        BadInput: There is no block, an option cannot be used, or a bounded figure is not predicted.
        InfeasibleBudget: Nothing that could stand for a block is cheaper than it.
    """
    costs = costs_of(problem, _space(problem, settings))
    keys = problem.budget.keys
    cheaper: list[set[int]] = [set() for _ in costs.space]
    additive = True
    for key in keys:
        base, tables = additions(costs, key)
        for own, table in zip(cheaper, tables, strict=True):
            own |= {int(i) for i in np.flatnonzero(table < -1e-9 * abs(base))}
        additive = additive and _adds_up(costs, key, base, tables)
    useful = tuple((0, *sorted(own - {0})) for own in cheaper)
    if all(len(own) == 1 for own in useful):
        raise InfeasibleBudget(
            f"no block of this network gets cheaper on {problem.target.name} by what could stand"
            f" for it: the original costs {cost_text(problem.original_cost, problem.budget)}",
            "offer other kinds, kernels or expansions, or narrow the layers with netadapt",
        )
    return Plan(costs, useful, additive)


def check_plan(problem: Problem, plan: Plan) -> None:
    """Refuse a budget that no architecture is within.

    Raises:
        InfeasibleBudget: The message names the cheapest cost.
    """
    try:
        plan.choose(plan.no_values(), problem.budget.limits)
    except InfeasibleBudget as error:
        raise InfeasibleBudget(
            f"the budget {problem.budget} cannot be met by replacing blocks: {error.message}",
            f"the original costs {cost_text(problem.original_cost, problem.budget)}; offer cheaper"
            " kinds, or narrow the layers with netadapt",
        ) from error


def _space(problem: Problem, settings: Mapping[str, Any]) -> BlockSpace:
    own = space_of(problem.net)
    patterns = tuple(str(settings["blocks"]).split())
    if own is not None and not patterns:
        kept = tuple(c for c in own if not any(p.startswith(problem.keep) for p in c.places))
        if not kept:
            raise BadInput("nothing of the network's search space is left to choose", "keep fewer")
        return with_keep(BlockSpace(kept))
    pool = Pool(
        tuple(settings["kinds"]), tuple(int(k) for k in settings["kernels"]),
        tuple(float(e) for e in settings["expansions"]), problem.target.alignment,
    )  # fmt: skip
    return replacement_space(problem.net, problem.example, pool, patterns, problem.keep)


def _adds_up(costs: SpaceCosts, key: str, base: float, tables: Sequence[Values]) -> bool:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, [len(t) for t in tables], (SAMPLES, len(tables)))
    added = base + sum(table[codes[:, c]] for c, table in enumerate(tables))
    return bool(np.allclose(costs.of(key)(codes), added, rtol=1e-9, atol=0))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ``BadInput`` where an option of the method is out of range."""
    ranges = {
        "distil_epochs": float(settings["distil_epochs"]) > 0,
        "distil_steps": int(settings["distil_steps"]) >= 0,
        "batch_size": int(settings["batch_size"]) >= 1,
        "learning_rate": float(settings["learning_rate"]) > 0,
        "together": int(settings["together"]) >= 1,
        "score_images": int(settings["score_images"]) >= 1,
        "levels": int(settings["levels"]) >= 1,
        "solutions": int(settings["solutions"]) >= 1,
        "overlap": 0 <= float(settings["overlap"]) <= 1,
        "short_steps": int(settings["short_steps"]) >= 0,
        "val_images": int(settings["val_images"]) >= 0,
    }
    require_in_range("lana", settings, ranges)
