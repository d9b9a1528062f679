# SPDX-License-Identifier: Apache-2.0
"""The file format of measured operators: one row each, readable and writable in a spreadsheet.

=============  =====================================================================
``kind``       Operator, as :class:`chipfit.graph.op.Op` calls it: ``conv2d``, ``linear``, ``add``
``inputs``     Shapes of the inputs, ``1x32x56x56``; several joined by ``+``
``output``     Shape of the output
``kernel``     ``3x3``; empty where the kind has none. So with ``stride`` and ``dilation``.
``groups``     ``1`` for a dense convolution, the channel count for a depthwise one
``activation`` The function fused behind it, ``none`` for none
``latency_ms`` What one run takes; empty where it was not measured yet
``spread_ms``  Optional: half-width of the 95 % confidence interval
``count``      How often the network uses it; for the reader, not read back
``first_node`` A place where it stands; not read back
=============  =====================================================================
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chipfit.errors import BadInput
from chipfit.graph.op import ACTIVATIONS, Op, Shape, make_op

#: What tells operators apart. Operators that agree in all of it count as the same.
SIGNATURE = (
    "kind", "inputs", "output", "kernel", "stride", "dilation", "groups", "activation",
)  # fmt: skip
COLUMNS = (*SIGNATURE, "latency_ms", "spread_ms", "count", "first_node")
_REQUIRED = ("kind", "inputs", "output", "latency_ms")
_HINT = "chipfit operators NET -o FILE.csv writes the form to fill in"


@dataclass(frozen=True)
class MeasuredOp:
    """One row with a latency.

    Args:
        signature: Values of :data:`SIGNATURE`, as text.
        op: The operator as far as the row tells.
        latency_ms: What one run takes.
        spread_ms: Half-width of the 95 % confidence interval, where it was given.
    """

    signature: tuple[str, ...]
    op: Op
    latency_ms: float
    spread_ms: float | None = None


def row_of(op: Op) -> dict[str, str]:
    """Return the columns of :data:`SIGNATURE` for an operator."""
    return {
        "kind": op.kind,
        "inputs": "+".join(_joined(shape) for shape in op.inputs),
        "output": _joined(op.output),
        "kernel": _joined(op.get("kernel", ())),
        "stride": _joined(op.get("stride", ())),
        "dilation": _joined(op.get("dilation", ())),
        "groups": str(op.get("groups", "")),
        "activation": op.activation,
    }


def signature(op: Op) -> tuple[str, ...]:
    """Return what an operator's row is found by."""
    return tuple(row_of(op).values())


def read_measurements(path: Path) -> list[MeasuredOp]:
    """Return the rows that have a latency.

    Raises:
        BadInput: The file cannot be read, lacks a column, holds a wrong value (its line is named),
            tells one operator twice, or holds no latency at all.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        absent = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
        if absent:
            raise BadInput(f"{path} has no column {', '.join(absent)}", _HINT)
        records = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot read the measurements {path}: {error}", _HINT) from error
    found: dict[tuple[str, ...], MeasuredOp] = {}
    for line, record in enumerate(records, 2):
        place = f"line {line} of {path}"
        if not (record["latency_ms"] or "").strip():
            continue
        row = _measured(record, place)
        if row.signature in found:
            raise BadInput(f"{place} tells an operator again that an earlier line has")
        found[row.signature] = row
    if not found:
        raise BadInput(f"{path} holds no latency", "fill in the column latency_ms")
    return list(found.values())


def write_operators(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write a form to fill in.

    Raises:
        StorageError: The file cannot be written.
    """
    from chipfit.files import write_bytes

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(Path(path), text.getvalue().encode())


def _measured(record: Mapping[str, str | None], place: str) -> MeasuredOp:
    text = {key: (record.get(key) or "").strip() for key in COLUMNS}
    latency_ms = _number(text["latency_ms"], "latency_ms", place)
    spread = _number(text["spread_ms"], "spread_ms", place) if text["spread_ms"] else None
    activation = text["activation"] or "none"
    if activation not in ACTIVATIONS:
        raise BadInput(f"unknown activation {activation!r} in {place}", ", ".join(ACTIVATIONS))
    inputs = [_shape(part, "inputs", place) for part in text["inputs"].split("+")]
    attrs: dict[str, Any] = {
        key: _shape(text[key], key, place) for key in ("kernel", "stride", "dilation") if text[key]
    }
    if text["groups"]:
        attrs["groups"] = _shape(text["groups"], "groups", place)[0]
    output = _shape(text["output"], "output", place)
    if text["kind"] == "conv2d":
        if len(inputs[0]) != 4 or len(output) != 4 or len(attrs.get("kernel", ())) != 2:
            raise BadInput(f"the conv2d in {place} lacks a shape 1xCxHxW or a kernel KxK", _HINT)
        attrs = {"stride": (1, 1), "dilation": (1, 1), "groups": 1} | attrs
    if text["kind"] in ("conv2d", "linear"):
        attrs["bias"] = True
    try:
        op = make_op(text["kind"], inputs, output, activation=activation, **attrs)
        return MeasuredOp(signature(op), op, latency_ms, spread)
    except (TypeError, ValueError) as error:
        raise BadInput(f"cannot read the operator in {place}: {error}", _HINT) from error


def _shape(text: str, column: str, place: str) -> Shape:
    try:
        shape = tuple(int(part) for part in text.split("x"))
    except ValueError as error:
        raise BadInput(
            f"cannot read {column} {text!r} in {place}", "for instance 1x32x56x56"
        ) from error
    if min(shape) < 1 or max(shape) > 1 << 40:
        raise BadInput(f"{column} {text!r} in {place} is no shape")
    return shape


def _number(text: str, column: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise BadInput(f"cannot read {column} {text!r} in {place}", "a decimal number") from error
    if not math.isfinite(value) or value < 0 or (column == "latency_ms" and value == 0):
        raise BadInput(f"{column} {text!r} in {place} is not a positive number")
    return value


def _joined(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
