# SPDX-License-Identifier: Apache-2.0
"""Predicting very many architectures of one search space at once.

:func:`~chipfit.cost.predict.predict_total` builds each network and looks its units up: about a
thousand networks a second. Evolution and integer programs ask for far more. As the cost of a
network is a sum over units, and the unit of a layer depends on a few choices only (its own and its
neighbours'), a :class:`VectorisedCost` finds out once which ones, and keeps per layer an array of
prices indexed by their options. A million architectures are then some array look-ups.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chipfit.cost.dependences import AGREEING, Dependences
from chipfit.cost.model import CalibrationModel, model_of
from chipfit.cost.predict import ADDITIVE
from chipfit.cost.slot import Row, Slot
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.graph.workload import Workload
from chipfit.targets.base import Target, Unit
from chipfit.workers import WorkerPool

Codes = NDArray[np.int64]
#: Architectures whose units are remembered: what is checked is mostly priced next.
RECENT = 100
#: Makes the network of an architecture: ``build({choice name: option}) -> Workload``.
Build = Callable[[Mapping[str, Any]], Workload]


class Decision(Protocol):
    """What is needed of a choice; :class:`chipfit.space.Choice` has it."""

    @property
    def name(self) -> str:
        """Name of the choice."""
        ...

    @property
    def options(self) -> Sequence[Any]:
        """Its options."""
        ...


class VectorisedCost:
    """One additive figure of all architectures of a space, from a cost table.

    Architectures are rows of option indices, one column per choice (:meth:`encode`). Results equal
    those of :func:`~chipfit.cost.predict.predict_total` exactly, given that all dependences were
    found: they are by varying one choice at a time from random architectures, then by checking
    random ones, and again those that :meth:`fill` is given; one that disagrees adds what it shows.

    Args:
        space: The choices, for instance a :class:`chipfit.space.SearchSpace`. Layers keep their
            names from architecture to architecture; a layer that is absent costs nothing.
        build: Makes an architecture's workload. For widths :func:`chipfit.graph.resize.resize` does
            so without building a network.
        target: Cuts it into units.
        table: Holds their prices.
        key: Which figure, one of :data:`chipfit.cost.predict.ADDITIVE`.
        calibration: As in :func:`~chipfit.cost.predict.predict`.
        seed: Of the architectures that dependences are found with.

    Raises:
        BadInput: The space is empty, or ``key`` does not add up over units.
    """

    def __init__(
        self,
        space: Iterable[Decision],
        build: Build,
        target: Target,
        table: CostTable,
        key: str = "latency_ms",
        calibration: float | CalibrationModel | None = None,
        seed: int = 0,
    ) -> None:
        if key not in ADDITIVE:
            raise BadInput(f"{key} does not add up over units", f"choose of {', '.join(ADDITIVE)}")
        self.key = key
        self.choices = {choice.name: tuple(choice.options) for choice in space}
        if not self.choices or not all(self.choices.values()):
            raise BadInput("the space has no choice, or one without options")
        self._build, self._target, self._table = build, target, table
        self._index = [{o: i for i, o in enumerate(own)} for own in self.choices.values()]
        self._sizes = np.array([len(own) for own in self.choices.values()])
        self._rng = random.Random(seed)
        table.anchor(target)
        model = model_of(target, table, calibration)
        self._prices = _Prices(target, table, model, key)
        self._recent: dict[Row, dict[str, Unit]] = {}
        self._fixed = model.fixed_value(key, target.fixed_cost().get(key, 0.0))
        self._dependences = Dependences(self._sizes.tolist(), self._keys_of, seed)
        self._dependences.find()
        #: One per layer of any architecture, in the order of execution.
        self.slots: list[Slot] = self._dependences.slots
        self._price()

    def encode(self, architectures: Iterable[Mapping[str, Any]]) -> Codes:
        """Return option indices, ``(N, choices)``.

        Raises:
            BadInput: A choice is missing or takes an option that it does not have.
        """
        rows = []
        for architecture in architectures:
            try:
                rows.append(
                    [own[architecture[n]] for n, own in zip(self.choices, self._index, strict=True)]
                )
            except KeyError as error:
                raise BadInput(f"not an architecture of this space: {error}") from error
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.choices))

    def decode(self, row: Sequence[int] | Codes) -> dict[str, Any]:
        """Return the architecture of one row of option indices."""
        return {name: own[int(i)] for (name, own), i in zip(self.choices.items(), row, strict=True)}

    def sample(self, count: int, seed: int = 0) -> Codes:
        """Return random rows of option indices, ``(count, choices)``, uniform in every choice."""
        rng = np.random.default_rng(seed)
        return rng.integers(0, self._sizes, (count, len(self._sizes)))

    def cost(self, codes: Codes) -> NDArray[np.float64]:
        """Return the figure of every row, ``(N,)``, in the unit of its key.

        Args:
            codes: Option indices, ``(N, choices)``.

        Raises:
            BadInput: Rows of another shape or range, or one that needs an absent price.
        """
        codes = self._checked(codes)
        columns = np.ascontiguousarray(codes.T)
        total = np.zeros(len(codes))
        places: dict[tuple[int, ...], Codes] = {}
        for slot in self.slots:
            if slot.choices not in places:
                places[slot.choices] = slot.places(columns)
            total += slot.prices(places[slot.choices])
        absent = int(np.isnan(total).sum())
        if absent:
            raise BadInput(
                f"{absent} of {len(codes)} architectures need prices that the table lacks",
                "call fill() with them first",
            )
        return total + self._fixed

    def missing(self, codes: Codes) -> NDArray[np.bool_]:
        """Return for every row whether it needs a price that is absent, ``(N,)``."""
        columns = np.ascontiguousarray(self._checked(codes).T)
        found = np.zeros(columns.shape[1], dtype=bool)
        for slot in self.slots:
            found |= np.isnan(slot.prices(slot.places(columns)))
        return found

    def fill(
        self,
        codes: Codes,
        pool: WorkerPool | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Price whatever the given rows need, through the table; return how many rows were built.

        Some of the rows, all where they are few, are checked against what their networks really
        are, whether or not their prices are known.

        Args:
            codes: Option indices, ``(N, choices)``.
            pool: Worker processes for absent units; this process where ``None``.
            on_progress: Called with the numbers of absent units done and in all.

        Raises:
            UnsupportedOp: The target refuses an operator of some architecture.
        """
        todo = self._checked(codes)
        built = self._dependences.agree(self._some(todo))
        self._price()
        while len(todo := todo[self.missing(todo)]):
            rows = self._covering(todo)
            units: dict[str, Unit] = {}
            for row in rows:
                units |= {unit.key: unit for unit in self._units_of(row).values()}
                self._dependences.learn(row)
            self._table.fill(self._target, list(units.values()), pool, on_progress)
            self._price()
            built += len(rows)
        return built

    def additive_costs(self) -> list[tuple[str, tuple[str, ...], dict[tuple[Any, ...], float]]]:
        """Return what an integer program needs: per layer its choices and the price per options.

        Only prices that are known appear; layers whose price depends on no choice have one entry,
        with the empty tuple. The call overhead of the runtime stands in a layer named ``""``.
        """
        names = list(self.choices)
        found = []
        for slot in self.slots:
            own = tuple(names[i] for i in slot.choices)
            prices = {
                tuple(self.choices[name][i] for name, i in zip(own, options, strict=True)): price
                for options, price in slot.entries()
            }
            found.append((slot.name, own, prices))
        return [*found, ("", (), {(): self._fixed})]

    def _units_of(self, row: Row) -> dict[str, Unit]:
        """Return the units of an architecture by the first layer that each charges."""
        if row in self._recent:
            return self._recent[row]
        units = {
            unit.source.nodes[unit.indices[unit.focus[0]]].name: unit
            for unit in self._target.units(self._build(self.decode(row)))
        }
        for unit in units.values():
            self._prices.learn(unit)
        while len(self._recent) >= RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[row] = units
        return units

    def _keys_of(self, row: Row) -> dict[str, str]:
        return {name: unit.key for name, unit in self._units_of(row).items()}

    def _some(self, codes: Codes) -> list[Row]:
        """Return rows in random order, no more than are ever needed to check."""
        picked = self._rng.sample(range(len(codes)), min(len(codes), 20 * AGREEING))
        return [tuple(map(int, codes[i])) for i in picked]

    def _price(self) -> None:
        self._dependences.sort()
        for slot in self.slots:
            slot.price(self._prices)

    def _covering(self, codes: Codes) -> list[Row]:
        """Return few rows that together need every absent price that any row needs."""
        columns = np.ascontiguousarray(codes.T)
        chosen: set[int] = set()
        for slot in self.slots:
            places = slot.places(columns)
            absent = np.flatnonzero(np.isnan(slot.prices(places)))
            done = set(places[list(chosen)].tolist()) if chosen else set()
            for place, i in zip(*np.unique(places[absent], return_index=True), strict=True):
                if int(place) not in done:
                    chosen.add(int(absent[i]))
        return [tuple(int(option) for option in codes[i]) for i in sorted(chosen)]

    def _checked(self, codes: Codes) -> Codes:
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != len(self._sizes) or codes.dtype.kind not in "iu":
            raise BadInput(
                f"option indices of shape {codes.shape} and type {codes.dtype} do not fit"
                f" {len(self._sizes)} choices",
                "encode() makes them from architectures",
            )
        if len(codes) and ((codes < 0) | (codes >= self._sizes)).any():
            raise BadInput("an option index is outside of its choice")
        return codes.astype(np.int64, copy=False)


class _Prices:
    """Looks up the calibrated price of a unit; remembers how units differ from their prices."""

    def __init__(self, target: Target, table: CostTable, model: CalibrationModel, key: str) -> None:
        self._target, self._table, self._model, self._key = target, table, model, key
        self._surcharges: dict[str, float] = {}

    def learn(self, unit: Unit) -> None:
        """Keep what the calibration needs of ``unit``."""
        if not self._model.linear:
            self._surcharges[unit.key] = self._model.surcharge_ms(unit)

    def __call__(self, key: str) -> float | None:
        cost = self._table.get_many(self._target.fingerprint, [key]).get(key)
        if cost is None:
            return None
        return self._model.unit_value(self._key, cost[self._key], self._surcharges.get(key, 0.0))
