# SPDX-License-Identifier: Apache-2.0
"""``measurements``: a device that is a CSV of measured operators.

``--target measurements:file=board.csv,name=myboard``. ``chipfit operators NET -o board.csv`` writes
the operators that a network needs, with the column ``latency_ms`` left to fill in. An operator with
a row costs what the row says. Others are interpolated between the rows of their class by
non-negative least squares on MACs, bytes moved and a constant; a class without rows is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.graph.op import Op
from chipfit.targets.base import TARGETS
from chipfit.targets.footprint import ELEMENT_BYTES, check_precision, op_weight_bytes
from chipfit.targets.measurements_csv import MeasuredOp, read_measurements, signature
from chipfit.targets.own import OperatorTarget

#: Fewer rows of a class tell nothing of an operator that has no row.
LEAST_ROWS = 2
#: Features that a class with this many rows or more is fitted with; one with fewer is scaled.
_ROWS_FOR_ALL = 4


@dataclass(frozen=True)
class ClassFit:
    """Latency of a class of operators between its rows.

    Args:
        weights: On MACs (or elements), bytes and 1; milliseconds.
        error: Largest relative error of a row under the fit to all the *other* rows.
        rows: Number of rows.
    """

    weights: tuple[float, ...]
    error: float
    rows: int


class Measurements(OperatorTarget):
    """A device known by measurements of operators.

    Args:
        file: The CSV, see :mod:`chipfit.targets.measurements_csv`.
        name: What the device is called.
        precision: Of weights and activations.
        call_ms: What every network costs besides its operators.

    Raises:
        BadInput: The file cannot be read or holds a wrong value, or an option is wrong.
    """

    #: The sum of measured operators was itself not measured.
    provenance = "predicted"

    def __init__(
        self, file: Path | str, name: str = "measurements", precision: str = "float32",
        call_ms: float = 0.0,
    ) -> None:  # fmt: skip
        check_precision(precision)
        if not math.isfinite(call_ms) or call_ms < 0:
            raise BadInput(f"call_ms={call_ms} is not a number of milliseconds")
        rows = read_measurements(Path(file))
        self.name, self.precision, self.call_ms = name, precision, call_ms
        self._rows = {row.signature: row for row in rows}
        self._source = hashlib.sha256(repr(sorted(map(repr, rows))).encode()).hexdigest()[:8]
        classes: dict[str, list[MeasuredOp]] = {}
        for row in rows:
            classes.setdefault(class_of(row.op), []).append(row)
        self.counts = {name: len(own) for name, own in classes.items()}
        #: Fits by class, each with its leave-one-out error.
        self.fits = {
            name: self._fit(own) for name, own in classes.items() if len(own) >= LEAST_ROWS
        }

    def latency_ms(self, op: Op) -> float | None:
        """Return the measured or interpolated latency."""
        cost = self.op_cost(op)
        return None if cost is None else cost["latency_ms"]

    def op_cost(self, op: Op) -> Cost | None:
        """Return the row's latency, or the interpolated one as ``predicted`` with its error."""
        row = self._rows.get(signature(op))
        if row is not None:
            spread = {} if row.spread_ms is None else {"latency_ms": row.spread_ms}
            return Cost({"latency_ms": row.latency_ms}, "measured", spread)
        fit = self.fits.get(class_of(op))
        if fit is None:
            return None
        latency_ms = float(self._features(op, len(fit.weights)) @ np.array(fit.weights))
        return Cost({"latency_ms": latency_ms}, "predicted", {"latency_ms": fit.error * latency_ms})

    def why_not(self, op: Op) -> str:
        """Return what to measure."""
        own = class_of(op)
        have = self.counts.get(own, 0)
        return f"{have or 'no'} row for {own}; measure it, or at least {LEAST_ROWS} others"

    def _features(self, op: Op, count: int) -> NDArray[np.float64]:
        size = ELEMENT_BYTES[self.precision]
        elements = sum(math.prod(shape) for shape in (*op.inputs, op.output))
        moved = elements * size + op_weight_bytes(op, self.precision)
        return np.array([float(op.macs or elements), float(moved), 1.0][:count])

    def _fit(self, rows: Sequence[MeasuredOp]) -> ClassFit:
        count = 3 if len(rows) >= _ROWS_FOR_ALL else 1
        features = np.array([self._features(row.op, count) for row in rows])
        measured = np.array([row.latency_ms for row in rows])
        error = 0.0
        for i in range(len(rows)):
            kept = np.arange(len(rows)) != i
            guess = float(features[i] @ _solve(features[kept], measured[kept]))
            error = max(error, abs(guess / measured[i] - 1))
        return ClassFit(tuple(map(float, _solve(features, measured))), error, len(rows))


def class_of(op: Op) -> str:
    """Return the class that an operator is interpolated in, in words."""
    if op.kind == "conv2d":
        if op.depthwise:
            return "depthwise convolutions"
        if op["groups"] > 1:
            return "grouped convolutions"
        return "1x1 convolutions" if tuple(op["kernel"]) == (1, 1) else "convolutions"
    if op.kind == "activation":
        return f"activation {op.activation}"
    return f"{op.kind} operators"


def _solve(features: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-negative weights of least squared relative error."""
    from scipy.optimize import nnls

    scaled = features / measured[:, None]
    norms = np.linalg.norm(scaled, axis=0)
    norms[norms == 0] = 1.0
    weights: NDArray[np.float64] = nnls(scaled / norms, np.ones(len(measured)))[0]
    return weights / norms


@TARGETS.register(
    "measurements", summary="a device known by a CSV of measured operators: measurements:file=..."
)
def measurements(
    file: str = "", name: str = "measurements", precision: str = "float32",
    call_ms: float | str = 0.0,
) -> Measurements:  # fmt: skip
    """Return the target; numbers may be text, as they are when they stand in a name."""
    if not file:
        raise BadInput(
            "the target measurements needs a file", "write measurements:file=board.csv,name=myboard"
        )
    try:
        overhead_ms = float(call_ms)
    except ValueError as error:
        raise BadInput(f"call_ms={call_ms} is not a number of milliseconds") from error
    return Measurements(file, name, precision, overhead_ms)
