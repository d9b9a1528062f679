# SPDX-License-Identifier: Apache-2.0
"""Vela's tables as costs: of whole files, of their layers, and of the operators it schedules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chipfit.cost.cost import Cost
from chipfit.targets.base import LayerCost, NetworkCost, RuntimeNode
from chipfit.targets.tflite_file import file_weights
from chipfit.targets.tflite_types import TensorTypes
from chipfit.targets.vela import VelaResult, VelaRow

#: Vela's operators that compute nothing.
CONVERSIONS = frozenset({"MemoryCopy", "Transpose", "Reshape", "Quantize", "Dequantize"})
_PROVENANCE = "compiled"


def timed(rows: Sequence[VelaRow], clock_hz: float) -> dict[str, float]:
    """Return the latency and cycles of rows together."""
    cycles = sum(row.cycles for row in rows)
    return {"latency_ms": cycles / clock_hz * 1e3, "cycles": cycles}


def whole(result: VelaResult) -> dict[str, float]:
    """Return the figures of a compiled file that Vela tells itself."""
    return {
        "latency_ms": result.latency_ms,
        "cycles": result.cycles,
        "peak_sram_bytes": result.sram_bytes,
        "flash_bytes": result.file_bytes,
    }


def file_cost(data: bytes, result: VelaResult, clock_hz: float) -> NetworkCost:
    """Return the cost of a file; layers are the rows of Vela's table.

    Where operators are left to the CPU, the total has no latency, cycles and MACs: the NPU's share
    alone would pass for the whole.

    Args:
        data: The ``.tflite`` file.
        result: The same compiled.
        clock_hz: Of the NPU.
    """
    types = TensorTypes(data)
    values = whole(result) | {"macs": result.macs} | file_weights(data)
    if result.cpu_ops:
        for key in ("latency_ms", "cycles", "macs"):
            del values[key]
    layers = tuple(
        LayerCost(
            row.name,
            row.original,
            Cost(timed([row], clock_hz) | {"macs": row.macs} if row.on_npu else {}, _PROVENANCE),
            runs_on="npu" if row.on_npu else "cpu",
            precision=types.precision(row.name),
        )
        for row in result.rows
    )
    return NetworkCost(Cost(values, _PROVENANCE), layers)


def file_rows(data: bytes, result: VelaResult) -> list[tuple[VelaRow, str, str]]:
    """Return the rows of a compiled file, each with the tensor it writes and that one's type."""
    types = TensorTypes(data)
    return [(row, types.tensor(row.name), types.precision(row.name)) for row in result.rows]


def scheduled(rows: Iterable[tuple[VelaRow, str, str]]) -> list[RuntimeNode]:
    """Return Vela's operators with their shares of the cycles.

    Those that it fused into others, at no cycles of their own, are left out.

    Args:
        rows: Each with the layer it works for and its precision.
    """
    owned = [item for item in rows if item[0].cycles]
    cycles = sum(row.cycles for row, _, _ in owned)
    return [
        RuntimeNode(
            row.name,
            row.operator,
            row.cycles / cycles,
            layer,
            precision,
            row.operator in CONVERSIONS,
        )
        for row, layer, precision in owned
    ]
