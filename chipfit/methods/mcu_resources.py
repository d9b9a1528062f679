# SPDX-License-Identifier: Apache-2.0
"""What the budget bounds, as differentiable functions of the widths of channel groups.

Multiply-accumulates, parameters, bytes of weights and the peak of live activations follow from the
network exactly. Latency, cycles and energy are, for every layer that the target prices,
``a MACs + b elements written + c``, fitted to prices of some widths (microcontrollers' latency is
nearly linear in MACs; Liberis, Dudziak and Lane, "uNAS", EuroMLSys 2021, arXiv 2010.14246). What
the device charges beyond these counts, such as the runtime's own structures in the tensor arena or
the scales in a file, is fitted as a constant plus multiples of widths. All of it only guides the
training: widths are decided by :meth:`McuResources.exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chipfit.cost.cost import Cost
from chipfit.cost.predict import ADDITIVE, predict_many
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.methods.mcu_memory import WidthMemory
from chipfit.methods.mcu_shapes import Affine, Values, WidthCounts
from chipfit.methods.reach import cost_text
from chipfit.methods.width_table import WidthTable
from chipfit.targets.base import NetworkCost

#: Networks of random widths that fits see besides those in which one group is narrow.
RANDOM = 6
Row = tuple[int, ...]


class McuResources:
    """Exact and differentiable costs of the widths of one network.

    Args:
        problem: Gives target, table and budget.
        table: The widths to choose from.
        smooth: Of the peak, see :class:`~chipfit.methods.mcu_memory.WidthMemory`.
    """

    def __init__(self, problem: Problem, table: WidthTable, smooth: float = 0.0) -> None:
        self._problem, self._table, self._smooth = problem, table, smooth
        self._known: dict[tuple[Any, ...], Cost] = problem.memo.setdefault("mcu_costs", {})
        self._examples: tuple[Values, list[Workload], list[NetworkCost]] | None = None
        self._functions: dict[str, Callable[[Tensor], Tensor]] = {}
        self._counts: WidthCounts | None = None

    def exact(self, rows: Sequence[Row]) -> list[Cost]:
        """Return what networks cost: counts, and what is predicted or the target's own figure.

        Where the budget bounds what no prediction speaks of, the target is asked, and its latency
        then stands for the predicted one too.

        Args:
            rows: Option indices of all groups.

        Raises:
            BadInput: The target reports no figure that the budget bounds.
        """
        problem, asked = self._problem, self._asks_target()
        keys = {row: (*self._table.widths(row).items(), problem.calibration, asked) for row in rows}
        waiting = [row for row, key in keys.items() if key not in self._known]
        for row, found in zip(waiting, self._table.networks(waiting), strict=True):
            values = dict(found.values)
            if asked:
                whole = problem.target.cost(self._workload(row)).total
                timed = {key: whole[key] for key in ADDITIVE if key in whole}
                values = {**whole.values, **values, **timed}
            self._known[keys[row]] = Cost(values, "predicted")
        return [self._known[keys[row]] for row in rows]

    def check(self) -> None:
        """Refuse a budget that the narrowest network is over.

        Raises:
            BadInput: The budget bounds what the target does not report.
            InfeasibleBudget: The message says what the narrowest network costs.
        """
        budget = self._problem.budget
        cheapest = self.exact([(0,) * len(self._table.full)])[0]
        missing = [key for key in budget.keys if key not in cheapest]
        if missing:
            raise BadInput(
                f"{self._problem.target.name} reports no {', '.join(missing)}",
                f"bound one of: {', '.join(sorted(cheapest.values))}",
            )
        if not budget.met(cheapest):
            raise InfeasibleBudget(
                f"the budget {budget} cannot be met by widths: the narrowest network costs "
                f"{cost_text(cheapest, budget)}",
                f"the original costs {cost_text(self.exact([self._table.full])[0], budget)}",
            )

    def of(self, key: str) -> Callable[[Tensor], Tensor]:
        """Return the cost ``key`` as a function of widths ``(groups,)`` in double precision."""
        if key not in self._functions:
            self._functions[key] = self._fitted(key)
        return self._functions[key]

    def expected(self, key: str) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return the same as a function of a list that holds the widths, as penalties take it."""
        function = self.of(key)
        return lambda widths: function(widths[0])

    def _asks_target(self) -> bool:
        """Whether the budget bounds what no prediction speaks of."""
        return bool(set(self._problem.budget.keys) - self._predicted())

    def _predicted(self) -> set[str]:
        def keys() -> set[str]:
            return set(self._table.networks([(0,) * len(self._table.full)])[0].values)

        return self._problem.once("predicted_keys", self._table.space, keys)

    def _workload(self, row: Row) -> Workload:
        return self._table.pricer.workload(self._table.widths(row))

    def _rows(self) -> list[Row]:
        """Return widths that fits see: the whole network, one group narrow, and random ones."""
        full = self._table.full
        rng = np.random.default_rng(0)
        one = [(*full[:g], full[g] // 2, *full[g + 1 :]) for g in range(len(full))]
        drawn = rng.integers(0, np.array(full) + 1, (RANDOM, len(full)))
        return [full, *one, *(tuple(int(i) for i in row) for row in drawn)]

    def _seen(self) -> tuple[Values, list[Workload], list[NetworkCost]]:
        """Return widths, workloads and predictions of the examples that fits see."""
        if self._examples is None:
            rows, problem = self._rows(), self._problem
            workloads = [self._workload(row) for row in rows]
            costs = predict_many(
                workloads, problem.target, problem.table, problem.calibration, pool=problem.pool
            )
            widths = [list(self._table.widths(row).values()) for row in rows]
            self._examples = np.array(widths, np.float64), workloads, costs
            self._counts = WidthCounts(self._examples[0], workloads, problem.target.precision)
        return self._examples

    def _fitted(self, key: str) -> Callable[[Tensor], Tensor]:
        widths, workloads, costs = self._seen()
        counts = self._counts
        assert counts is not None
        if key in ADDITIVE and key in costs[0].total:
            base = self._layers(key, counts)
        elif key == "peak_sram_bytes":
            memory = WidthMemory(widths, [self._problem.target.memory_graph(w) for w in workloads])
            true = self._corrected(key, memory)
            smooth = self._smooth
            return lambda w: true(w) + (memory(w, smooth) - memory(w) if smooth else 0.0)
        else:
            name = "weight_bytes" if key == "flash_bytes" else key
            if name not in ("macs", "params", "weight_bytes"):
                raise BadInput(f"mcu cannot steer by {key} on {self._problem.target.name}")

            def base(w: Tensor) -> Tensor:
                return counts(w)[name].sum()

        return self._corrected(key, base)

    def _corrected(self, key: str, base: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Add what the exact figures of the examples are beyond ``base``, affine in widths."""
        widths = self._seen()[0]
        exact = np.array([cost[key] for cost in self.exact(self._rows())])
        with torch.no_grad():
            plain = np.array([float(base(torch.as_tensor(row))) for row in widths])
        rest = exact - plain
        if not rest.any():
            return base
        extra = Affine(widths, rest[:, None])
        return lambda w: base(w) + extra(w)[0]

    def _layers(self, key: str, counts: WidthCounts) -> Callable[[Tensor], Tensor]:
        """Return the sum over priced layers of ``a MACs + b elements written + c``."""
        from scipy.optimize import nnls

        widths, workloads, costs = self._seen()
        place = {node.name: i for i, node in enumerate(workloads[0].nodes)}
        tables = [{layer.name: layer.cost for layer in cost.layers} for cost in costs]
        names = [
            n for n in tables[0] if all(key in t.get(n, Cost({}, "predicted")) for t in tables)
        ]
        with torch.no_grad():
            found = [counts(torch.as_tensor(row)) for row in widths]
        macs = torch.zeros(len(place), dtype=torch.float64)
        outputs, constant = torch.zeros_like(macs), 0.0
        for name in names:
            nodes = _nodes(name, place)
            if not nodes:
                continue
            design = np.array(
                [[float(f["macs"][nodes].sum()), float(f["outputs"][nodes].sum()), 1.0]
                 for f in found]
            )  # fmt: skip
            scale = np.maximum(design.max(0), 1.0)
            a, b, c = nnls(design / scale, np.array([t[name][key] for t in tables]))[0] / scale
            macs[nodes] += a
            outputs[nodes] += b
            constant += c

        def total(w: Tensor) -> Tensor:
            terms = counts(w)
            return terms["macs"] @ macs + terms["outputs"] @ outputs + constant

        return total


def _nodes(name: str, place: Mapping[str, int]) -> list[int]:
    """Return the operators of a priced layer: one, or a run of them."""
    first, dots, last = name.partition(" .. ")
    if not dots:
        return [place[name]] if name in place else []
    if first not in place or last not in place:
        return []
    return list(range(place[first], place[last] + 1))
