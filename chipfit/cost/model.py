# SPDX-License-Identifier: Apache-2.0
"""``CalibrationModel``: what turns prices of units into the price of a whole network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from chipfit.cost.table import CALIBRATION, CostTable
from chipfit.targets.base import Target, Unit

#: Names of the facts that a table keeps the model under, besides the factor's own.
WEIGHT, OPERATOR = "calibration_weight_ms", "calibration_operator_ms"
EDGE = "calibration_edge_ms"
ERROR = "calibration_error"


@dataclass(frozen=True)
class CalibrationModel:
    """How units add up to a network.

    A network costs, summed over its units, ``factor * latency + weight_ms * weights + operator_ms *
    operators - edge_ms * edges``.

    A unit that is measured alone runs again and again, and finds its weights, its code and its
    buffers in the caches. Inside a network they come anew: a price per weight and one per operator,
    which no unit shows. A runtime that keeps tensors in a layout of its own also converts them
    where the unit begins and ends, which inside a network nobody does: a surplus per element there.
    The factor is for what is left.

    Args:
        factor: On every additive figure.
        weight_ms: Milliseconds of latency per million weights.
        operator_ms: Milliseconds of latency per operator with multiply-accumulates.
        edge_ms: Milliseconds of latency per million elements that enter or leave a unit.
        error: Half-width of the 95 % interval of predicted latencies, relative, from networks that
            were held out; ``None`` where nothing was ever compared.
    """

    factor: float = 1.0
    weight_ms: float = 0.0
    operator_ms: float = 0.0
    edge_ms: float = 0.0
    error: float | None = None

    @property
    def linear(self) -> bool:
        """Whether the model is a factor alone, for which a unit's price is enough."""
        return self.weight_ms == self.operator_ms == self.edge_ms == 0.0

    def surcharge_ms(self, unit: Unit) -> float:
        """Return what is added to the scaled latency of ``unit``."""
        if self.linear:
            return 0.0
        weights, operators, edges = sizes_of(unit)
        return self.weight_ms * weights + self.operator_ms * operators - self.edge_ms * edges

    def unit_value(self, key: str, value: float, surcharge_ms: float) -> float:
        """Return what a unit contributes to a whole network, never less than nothing.

        Args:
            key: The figure, one of :data:`chipfit.cost.predict.ADDITIVE`.
            value: The unit's own figure.
            surcharge_ms: Of :meth:`surcharge_ms`; latency alone has one.
        """
        scaled = value if self.factor == 1.0 else value * self.factor
        return max(scaled + surcharge_ms, 0.0) if key == "latency_ms" else scaled

    def fixed_value(self, key: str, value: float) -> float:
        """Return what a network costs besides its units (``Target.fixed_cost``)."""
        return value if self.factor == 1.0 else value * self.factor

    def facts(self) -> dict[str, float]:
        """Return the figures that a table stores; an unknown error is negative there."""
        error = -1.0 if self.error is None else self.error
        return {
            CALIBRATION: self.factor, WEIGHT: self.weight_ms, OPERATOR: self.operator_ms,
            EDGE: self.edge_ms, ERROR: error,
        }  # fmt: skip

    @classmethod
    def from_facts(cls, facts: Mapping[str, float]) -> CalibrationModel:
        """Restore a model from :meth:`facts`; the neutral one where there is none."""
        error = facts.get(ERROR, -1.0)
        return cls(
            facts.get(CALIBRATION, 1.0),
            facts.get(WEIGHT, 0.0),
            facts.get(OPERATOR, 0.0),
            facts.get(EDGE, 0.0),
            error if error >= 0 else None,
        )


def model_of(
    target: Target, table: CostTable, calibration: float | CalibrationModel | None = None
) -> CalibrationModel:
    """Return the model to predict with.

    Args:
        target: Whose prices are summed.
        table: Keeps the model that :func:`chipfit.cost.calibrate.calibrate` fitted.
        calibration: A model, or a bare factor; ``None`` takes the table's, which changes nothing
            where none was fitted.
    """
    if calibration is None:
        return CalibrationModel.from_facts(table.facts(target.fingerprint))
    if isinstance(calibration, CalibrationModel):
        return calibration
    return CalibrationModel(float(calibration))


_SIZES: dict[str, tuple[float, int, float]] = {}


def sizes_of(unit: Unit) -> tuple[float, int, float]:
    """Return what surcharges are taken of.

    Returns:
        Million parameters of the charged operators, the number of those that multiply, and million
        elements of the tensors that enter and leave the unit.
    """
    found = _SIZES.get(unit.key)
    if found is None:
        part = unit.workload
        ops = [part.nodes[i].op for i in unit.focus]
        edges = sum(math.prod(part.shapes[name]) for name in (*part.inputs, *part.outputs))
        found = (
            sum(op.parameter_count for op in ops) / 1e6,
            sum(op.macs > 0 for op in ops),
            edges / 1e6,
        )
        if len(_SIZES) > 1 << 17:
            _SIZES.clear()
        _SIZES[unit.key] = found
    return found
