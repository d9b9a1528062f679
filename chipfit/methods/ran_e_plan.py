# SPDX-License-Identifier: Apache-2.0
"""What RAN-e can do to a network on a device, and which patterns are worth a proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.cost.cost import Cost
from chipfit.errors import InfeasibleBudget
from chipfit.graph.blocks import ActivatedBlock, find_blocks, require_blocks
from chipfit.methods.base import Problem
from chipfit.methods.derive import best_within, cheapest_within_reach
from chipfit.methods.ran_e_costs import PatternCosts
from chipfit.methods.ran_e_options import BlockOption, block_options
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text

Codes = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """Blocks, their options and their costs.

    Args:
        blocks: In the order of execution.
        costs: Of every combination of their options.
        gates: By gated block, the index of the option that its gate leads to.
    """

    blocks: tuple[ActivatedBlock, ...]
    costs: PatternCosts
    gates: Mapping[str, int]

    def options(self, row: Sequence[int] | Codes) -> dict[str, BlockOption]:
        """Return the options of a pattern by block."""
        return {
            b.module: self.costs.options[b.module][int(i)]
            for b, i in zip(self.blocks, row, strict=True)
        }

    @property
    def linear(self) -> dict[str, tuple[int, str]]:
        """Kernel and activation of the linear path of every gated block."""
        found = {}
        for name, index in self.gates.items():
            swap = self.costs.options[name][index].swap
            if swap is not None:
                found[name] = int(swap.options["kernel"]), str(swap.options["act"])
        return found

    def gated_cost(self, key: str, codes: Codes) -> Values:
        """Return the cost of gate patterns ``(N, gates)``: 0 keeps a block, 1 linearises it."""
        rows = np.zeros((len(codes), len(self.blocks)), np.int64)
        names = [block.module for block in self.blocks]
        for g, (name, index) in enumerate(self.gates.items()):
            rows[:, names.index(name)] = codes[:, g] * index
        return self.costs.of(key)(rows)

    def odds_scores(self, log_odds: Mapping[str, float]) -> list[Values]:
        """Return the log-odds of keep against linear as scores; other options are forbidden."""
        scores = []
        for block in self.blocks:
            own = np.full(len(self.costs.options[block.module]), -np.inf)
            own[0] = 0.0
            if block.module in self.gates:
                own[self.gates[block.module]] = -log_odds[block.module]
            scores.append(own)
        return scores

    def both_scores(self, worth: Sequence[Values], log_odds: Mapping[str, float]) -> list[Values]:
        """Return the worth of every option, that of linear ones corrected by their gate.

        Log-odds have no unit; they are scaled to the mean worth of the linear options.
        """
        linear = [
            -worth[b][self.gates[block.module]]
            for b, block in enumerate(self.blocks)
            if block.module in self.gates
        ]
        size = float(np.mean(np.abs(list(log_odds.values())))) if log_odds else 0.0
        unit = float(np.mean(np.abs(linear))) / size if linear and size > 0 else 0.0
        scores = []
        for b, block in enumerate(self.blocks):
            own = worth[b].copy()
            for i, option in enumerate(self.costs.options[block.module]):
                if option.linear and block.module in log_odds:
                    own[i] -= 0.5 * unit * log_odds[block.module]
            scores.append(own)
        return scores

    def best(
        self, scores: Sequence[Values], limits: Mapping[str, float], count: int = 1
    ) -> list[tuple[int, ...]]:
        """Return the patterns of highest total score within the limits, best first."""
        functions = {key: self.costs.of(key) for key in limits}
        rows = best_within(scores, functions, limits, count)
        return [tuple(int(i) for i in row) for row in rows]

    def cheapest(self, key: str) -> Cost:
        """Return every predicted figure of the pattern of least ``key``."""
        sizes = [len(choice.options) for choice in self.costs.space]
        row = cheapest_within_reach(sizes, self.costs.of(key))
        return self.costs.networks([[int(i) for i in row]])[0]


def make_plan(problem: Problem, settings: Mapping[str, Any]) -> Plan:
    """Find blocks and price their options; options that save nothing that is bounded are dropped.

    Raises:
        BadInput: There is no such block, or a bounded figure is not predicted on the target.
        InfeasibleBudget: No pattern is within the budget; the message names the cheapest.
    """
    found, unrecognised = find_blocks(problem.net, problem.example, problem.keep)
    blocks = require_blocks(found, unrecognised)
    for one in unrecognised:
        problem.progress(f"{one.module} stays: {one.reason}")
    alignment = problem.target.alignment
    offered = {b.module: block_options(b, alignment, settings) for b in blocks}
    everything = PatternCosts(problem, blocks, offered)
    keys = problem.budget.keys
    useful = {b.module: offered[b.module][:1] for b in blocks}
    singles = np.zeros((sum(len(o) for o in offered.values()), len(blocks)), np.int64)
    places = [(b, i) for b, block in enumerate(blocks) for i in range(len(offered[block.module]))]
    for row, (b, i) in zip(singles, places, strict=True):
        row[b] = i
    saving = np.zeros(len(places), bool)
    for key in keys:
        costs = everything.of(key)(singles)
        saving |= costs < costs[0] * (1 - 1e-9)
    for (b, i), saves in zip(places, saving, strict=True):
        if saves:
            useful[blocks[b].module].append(offered[blocks[b].module][i])
    blocks = [b for b in blocks if len(useful[b.module]) > 1]
    if not blocks:
        raise InfeasibleBudget(
            f"no block gets cheaper on {problem.target.name} without its activations, or smaller: "
            f"the original, at {cost_text(everything.networks([[0] * len(found)])[0])}, is the "
            "cheapest",
            "netadapt can narrow the layers themselves",
        )
    gates = {}
    for block in blocks:
        linear = [i for i, o in enumerate(useful[block.module]) if o.linear]
        if linear:
            gates[block.module] = linear[0]
    plan = Plan(tuple(blocks), PatternCosts(problem, blocks, useful), gates)
    check_reach(problem, plan)
    return plan


def check_reach(problem: Problem, plan: Plan) -> None:
    """Refuse a budget that no pattern is within.

    Raises:
        InfeasibleBudget: The message names the cheapest pattern's cost.
    """
    sizes = [len(choice.options) for choice in plan.costs.space]
    if plan.best([np.zeros(size) for size in sizes], problem.budget.limits):
        return
    start = plan.costs.networks([[0] * len(sizes)])[0]
    cheapest = plan.cheapest(problem.budget.keys[0])
    raise InfeasibleBudget(
        f"the budget {problem.budget} cannot be met by linearising and shrinking blocks: the "
        f"cheapest reachable network costs {cost_text(cheapest, problem.budget)}",
        f"the original costs {cost_text(start, problem.budget)}; netadapt narrows other layers too",
    )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ``BadInput`` where an option of the method is out of range."""
    ranges = {
        "steps": int(settings["steps"]) >= 1,
        "proposals": int(settings["proposals"]) >= 1,
        "short_steps": int(settings["short_steps"]) >= 1,
        "search_epochs": float(settings["search_epochs"]) > 0,
        "search_steps": int(settings["search_steps"]) >= 0,
        "learning_rate": float(settings["learning_rate"]) > 0,
        "temperature_start": float(settings["temperature_start"]) > 0,
        "temperature_end": float(settings["temperature_end"]) > 0,
        "expansions": all(0 < float(share) < 1 for share in settings["expansions"]),
        "activations": len(settings["activations"]) > 0,
        "warmup": 0 <= float(settings["warmup"]) < 1,
    }
    require_in_range("ran-e", settings, ranges)
