# SPDX-License-Identifier: Apache-2.0
"""Patterns of RAN-e blocks without training: cheapest on a device at no fewer non-linear units.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562, search their patterns
by training; this search asks the compiler alone and is our own. Whole networks are compiled, their
cycles are charged to their blocks, a :class:`~chipfit.methods.ran_e_chain.ChainTable` learns from
them what a block costs between its neighbours, and an integer program finds the pattern that is
cheapest by that table and meets all floors. It is compiled whole, the table learns from it, and so
on, until the table's best unseen patterns, and the best neighbours of the best compiled one, have
failed to beat it for a while.

What is exact: the floors, the compiled cost of what is returned, and that by the final table no
pattern within the floors is cheaper than the stated bound, those that were compiled apart. What is
not: the table, which takes a block's cost to depend on its neighbours only. So "optimal" is a
statement about the table, and the last patterns that were compiled show how far to trust it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.methods.ran_e_chain import ChainTable, Row
from chipfit.scores.non_linear_units import non_linear_units
from chipfit.space.choice import SearchSpace
from chipfit.targets import Target

#: What patterns are bounded by, from below.
RESOURCES = ("units", "macs", "params")
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Compiled:
    """A pattern compiled as a whole network.

    Args:
        parts: Its options, one per block.
        cycles: Of the whole network.
        latency_ms: Of the whole network.
        charges: Cycles by block; the rest belongs to stem, head and classifier.
        amounts: Non-linear units, MACs and parameters of the whole network.
    """

    parts: Parts
    cycles: float
    latency_ms: float
    charges: tuple[float, ...]
    amounts: Mapping[str, float]


#: Compiles several patterns, in their order.
CompileMany = Callable[[Sequence[Parts]], list[Compiled]]


@dataclass(frozen=True)
class Effort:
    """How long to search.

    Args:
        sweeps: Rounds of seeding; in each, every block takes every option once.
        batch: Patterns of each kind compiled between two updates of the table.
        patience: Patterns in a row that may fail to be better before the search ends.
        compilations: Most patterns to compile after seeding.
        seed: Of the seeding patterns.
    """

    sweeps: int = 2
    batch: int = 2
    patience: int = 24
    compilations: int = 120
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """What :func:`search_pattern` returns.

    Args:
        best: The cheapest pattern within the floors, as compiled.
        bound: Cycles that no pattern within the floors can be below by the final table, those that
            were compiled apart.
        next_predicted: Cycles that the table predicts for the best pattern that was not compiled.
        asked: Patterns that the search asked for, in order.
        errors: Relative errors of the table on patterns that it proposed, in order.
    """

    best: Compiled
    bound: float
    next_predicted: float
    asked: tuple[Compiled, ...]
    errors: tuple[float, ...] = field(default=())


def search_pattern(
    space: SearchSpace,
    compile_many: CompileMany,
    amounts: Mapping[str, Sequence[Sequence[float]]],
    floors: Mapping[str, float],
    effort: Effort = Effort(),
    known: Sequence[Compiled] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Found:
    """Find the pattern of fewest cycles whose amounts are no less than ``floors``.

    Args:
        space: One choice per block, in the order of execution.
        compile_many: Compiles whole networks; it may remember those it compiled before.
        amounts: What every option of every block has of each resource (:func:`amounts_of`).
        floors: Least sums over the blocks, by resource.
        effort: How long to search.
        known: Patterns of this space compiled before, to learn from; they count as candidates.
        progress: Called with one line at every step worth telling.

    Raises:
        InfeasibleBudget: No pattern meets the floors.
        BadInput: A resource of ``floors`` has no amounts.
    """
    absent = sorted(set(floors) - set(amounts))
    if absent:
        raise BadInput(f"no amounts of {', '.join(absent)}", f"known: {', '.join(amounts)}")
    search = _Search(space, compile_many, amounts, floors, progress)
    search.take(known)
    search.take(compile_many(list(search.seeds(effort))))
    return search.run(effort)


class _Search:
    """The state of one search: the table, what was compiled, and the best of it."""

    def __init__(
        self, space: SearchSpace, compile_many: CompileMany,
        amounts: Mapping[str, Sequence[Sequence[float]]], floors: Mapping[str, float],
        progress: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._options = [choice.options for choice in space]
        self._compile, self._amounts, self._floors = compile_many, amounts, floors
        self._say = progress
        self._table = ChainTable(tuple(map(len, self._options)))
        self._asked: dict[Row, Compiled] = {}
        self._best: Compiled | None = None

    def seeds(self, effort: Effort) -> Iterator[Parts]:
        """Yield patterns in which every block takes every option once a sweep."""
        draw = random.Random(effort.seed)
        width = max(map(len, self._options))
        for _ in range(effort.sweeps):
            orders = [draw.sample(range(width), width) for _ in self._options]
            for turn in range(width):
                yield tuple(
                    own[order[turn] % len(own)]
                    for own, order in zip(self._options, orders, strict=True)
                )

    def take(self, patterns: Sequence[Compiled]) -> int:
        """Learn from compiled patterns; return how many of them in a row, at the end, lost."""
        lost = 0
        for compiled in patterns:
            row = self._row(compiled.parts)
            if row in self._asked:
                continue
            self._asked[row] = compiled
            self._table.learn(row, compiled.charges, compiled.cycles - sum(compiled.charges))
            lost += 1
            if self._meets(row) and (self._best is None or compiled.cycles < self._best.cycles):
                self._best, lost = compiled, 0
                self._say(
                    f"{compiled.cycles:,.0f} cycles with {len(self._asked)} patterns compiled:"
                    f" {'_'.join(compiled.parts)}"
                )
        return lost

    def run(self, effort: Effort) -> Found:
        """Propose, compile and learn until nothing better turns up."""
        errors: list[float] = []
        lost = spent = 0
        while lost < effort.patience and spent < effort.compilations:
            self._table.fit()
            rows: list[Row] = []
            for _ in range(effort.batch):
                taken = [*self._asked, *rows]
                rows.append(self._table.cheapest(self._amounts, self._floors, taken)[0])
            rows += self._neighbours(rows, effort.batch)
            compiled = self._compile([self._parts(row) for row in rows])
            errors += [
                self._table.predict(row) / one.cycles - 1
                for row, one in zip(rows, compiled, strict=True)
            ]
            behind = self.take(compiled)
            lost = lost + behind if behind == len(rows) else behind
            spent += len(rows)
        self._table.fit()
        _, predicted, bound = self._table.cheapest(
            self._amounts, self._floors, list(self._asked)
        )  # fmt: skip
        best = min(
            (one for row, one in self._asked.items() if self._meets(row)),
            key=lambda one: one.cycles,
        )
        return Found(best, bound, predicted, tuple(self._asked.values()), tuple(errors))

    def _neighbours(self, without: Sequence[Row], count: int) -> list[Row]:
        """Return the cheapest patterns by the table that differ from the best one in one block."""
        if self._best is None:
            return []
        best = self._row(self._best.parts)
        near = {
            (*best[:place], option, *best[place + 1 :])
            for place, own in enumerate(self._options)
            for option in range(len(own))
        }
        new = [row for row in near.difference(self._asked, without) if self._meets(row)]
        return sorted(new, key=lambda row: (self._table.predict(row), row))[:count]

    def _meets(self, row: Row) -> bool:
        return all(
            sum(own[option] for own, option in zip(self._amounts[name], row, strict=True)) >= floor
            for name, floor in self._floors.items()
        )

    def _row(self, parts: Parts) -> Row:
        try:
            return tuple(own.index(p) for own, p in zip(self._options, parts, strict=True))
        except ValueError as error:
            raise BadInput(f"the pattern {'_'.join(parts)} is none of this space") from error

    def _parts(self, row: Row) -> Parts:
        return tuple(own[option] for own, option in zip(self._options, row, strict=True))


def amounts_of(
    space: SearchSpace, build: Callable[[Parts], nn.Module], input_shape: Sequence[int]
) -> tuple[dict[str, list[list[float]]], dict[str, float]]:
    """Count what every option of every block has of each resource, and what the rest has.

    Args:
        space: One choice per block.
        build: Makes the network of a pattern, with its blocks in the sequence ``blocks``; it is
            called on the ``meta`` device.
        input_shape: ``(1, C, H, W)``.

    Returns:
        Amounts by resource, block and option; and by resource those outside of the blocks.
    """
    width = max(len(choice.options) for choice in space)
    found: dict[str, list[list[float]]] = {name: [[] for _ in space] for name in RESOURCES}
    rest: dict[str, float] = {}
    for turn in range(width):
        parts = tuple(c.options[min(turn, len(c.options) - 1)] for c in space)
        own, rest = _count(build, parts, input_shape)
        for place, choice in enumerate(space):
            if turn < len(choice.options):
                for name in RESOURCES:
                    found[name][place].append(own[place][name])
    return found, rest


def _count(
    build: Callable[[Parts], nn.Module], parts: Parts, input_shape: Sequence[int]
) -> tuple[list[dict[str, float]], dict[str, float]]:
    with torch.device("meta"):
        net = build(parts).eval()
    every = dict.fromkeys(RESOURCES, 0.0)
    blocks = [dict(every) for _ in parts]
    for name, module in net.named_modules():
        pieces = name.split(".")
        ledger = blocks[int(pieces[1])] if pieces[0] == "blocks" and pieces[1:] else every
        ledger["params"] += sum(p.numel() for p in module.parameters(recurse=False))
        if not list(module.children()):
            module.register_forward_hook(_counter(ledger))
    with torch.no_grad():
        net(torch.zeros(*input_shape, device="meta"))
    return blocks, every


def _counter(ledger: dict[str, float]) -> Callable[..., None]:
    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            ledger["macs"] += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            ledger["macs"] += output.numel() * module.in_features
        elif isinstance(module, (nn.Hardswish, nn.ReLU, nn.ReLU6, nn.SiLU)):
            ledger["units"] += output.numel()

    return count


def compile_pattern(
    target: Target, build: Callable[[Parts], nn.Module], parts: Parts, input_shape: Sequence[int]
) -> Compiled:
    """Compile a pattern's whole network and charge its cycles to its blocks.

    Raises:
        BadInput: The target compiles nothing, so that no layer has cycles of its own.
        UnsupportedOp: The target refuses an operator.
    """
    if target.provenance != "compiled":
        raise BadInput(
            f"{target.spec} has no compiler whose cycles could be charged to blocks",
            "name a compiled target, such as ethos-u55-128",
        )
    net = build(parts).eval()
    workload = trace(net, torch.zeros(*input_shape))
    cost = target.cost(workload)
    charges = np.zeros(len(parts))
    for layer in cost.layers:
        pieces = layer.name.split(".")
        if pieces[0] == "blocks":
            charges[int(pieces[1])] += layer.cost["cycles"]
    amounts = {
        "units": float(non_linear_units(workload)), "macs": float(workload.macs),
        "params": float(sum(p.numel() for p in net.parameters())),
    }  # fmt: skip
    total = cost.total
    return Compiled(parts, total["cycles"], total["latency_ms"], tuple(charges.tolist()), amounts)
