# SPDX-License-Identifier: Apache-2.0
"""``CalibrationModel``: what turns prices of units into the price of a whole network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chipfit.cost.table import CALIBRATION, CostTable
from chipfit.targets.base import Target, Unit

#: Names of the facts that a table keeps the model under, besides the factor's own.
WEIGHT, OPERATOR = "calibration_weight_ms", "calibration_operator_ms"
ERROR = "calibration_error"


@dataclass(frozen=True)
class CalibrationModel:
    """How units add up to a network.

    It costs ``factor * latency + weight_ms * weights + operator_ms * operators``, summed over them.

    A unit that is measured alone runs again and again, and finds its weights, its code and its
    buffers in the caches. Inside a network they come anew: a price per weight and one per operator,
    which no unit shows. The factor is for what is left: layout conversions where a unit begins and
    ends, fusion across units.

    Args:
        factor: On every additive figure.
        weight_ms: Milliseconds of latency per million weights.
        operator_ms: Milliseconds of latency per operator.
        error: Half-width of the 95 % interval of predicted latencies, relative, from networks that
            were held out; ``None`` where nothing was ever compared.
    """

    factor: float = 1.0
    weight_ms: float = 0.0
    operator_ms: float = 0.0
    error: float | None = None

    @property
    def linear(self) -> bool:
        """Whether the model is a factor alone, for which a unit's price is enough."""
        return self.weight_ms == 0.0 and self.operator_ms == 0.0

    def surcharge_ms(self, unit: Unit) -> float:
        """Return what is added to the scaled latency of ``unit``."""
        if self.linear:
            return 0.0
        return self.weight_ms * weights_of(unit) / 1e6 + self.operator_ms * len(unit.focus)

    def unit_value(self, key: str, value: float, surcharge_ms: float) -> float:
        """Return what a unit contributes to a whole network.

        Args:
            key: The figure, one of :data:`chipfit.cost.predict.ADDITIVE`.
            value: The unit's own figure.
            surcharge_ms: Of :meth:`surcharge_ms`; latency alone has one.
        """
        scaled = value if self.factor == 1.0 else value * self.factor
        return scaled + surcharge_ms if key == "latency_ms" else scaled

    def fixed_value(self, key: str, value: float) -> float:
        """Return what a network costs besides its units (``Target.fixed_cost``)."""
        return value if self.factor == 1.0 else value * self.factor

    def facts(self) -> dict[str, float]:
        """Return the figures that a table stores; an unknown error is negative there."""
        error = -1.0 if self.error is None else self.error
        return {
            CALIBRATION: self.factor, WEIGHT: self.weight_ms, OPERATOR: self.operator_ms,
            ERROR: error,
        }  # fmt: skip

    @classmethod
    def from_facts(cls, facts: Mapping[str, float]) -> CalibrationModel:
        """Restore a model from :meth:`facts`; the neutral one where there is none."""
        error = facts.get(ERROR, -1.0)
        return cls(
            facts.get(CALIBRATION, 1.0),
            facts.get(WEIGHT, 0.0),
            facts.get(OPERATOR, 0.0),
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


_WEIGHTS: dict[str, int] = {}


def weights_of(unit: Unit) -> int:
    """Return the parameters of the operators that ``unit`` charges."""
    found = _WEIGHTS.get(unit.key)
    if found is None:
        nodes = (unit.source.nodes[unit.indices[i]] for i in unit.focus)
        found = sum(node.op.parameter_count for node in nodes)
        if len(_WEIGHTS) > 1 << 17:
            _WEIGHTS.clear()
        _WEIGHTS[unit.key] = found
    return found
