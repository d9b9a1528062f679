# SPDX-License-Identifier: Apache-2.0
"""A TFLite graph in memory: tensors and operators, before they become a flatbuffer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Fused activation functions of TFLite operators.
FUSED = {"none": 0, "relu": 1, "relu6": 3}


@dataclass(frozen=True)
class Quant:
    """How integers stand for reals: ``real = scale * (integer - zero_point)``.

    Args:
        scale: One scale, or one per slice of ``axis``.
        zero_point: Shared by all slices.
        axis: The axis of per-slice scales.
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0

    @property
    def step(self) -> float:
        """The scale of a tensor that has a single one."""
        return self.scale[0]


def quant_of_range(low: float, high: float) -> Quant:
    """Return the asymmetric int8 quantisation of ``[low, high]``, widened to hold zero."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    span = max(high - low, 1e-6)
    scale = float(np.float32(span / 255.0))
    zero_point = int(np.clip(round(-128 - low / scale), -128, 127))
    return Quant((scale,), zero_point)


def quantise(values: np.ndarray, quant: Quant) -> np.ndarray:
    """Return int8 codes of float ``values`` under a single-scale ``quant``."""
    codes = np.round(np.asarray(values, np.float64) / quant.step) + quant.zero_point
    return np.clip(codes, -128, 127).astype(np.int8)


@dataclass(eq=False)
class TFTensor:
    """A tensor: ``data`` is its constant content, ``None`` for an activation."""

    name: str
    shape: tuple[int, ...]
    quant: Quant | None = None
    data: np.ndarray | None = None
    dtype: str = "int8"


@dataclass(eq=False)
class TFOperator:
    """A builtin operator such as ``CONV_2D``; ``options`` are fields of its options table."""

    kind: str
    inputs: list[TFTensor]
    outputs: list[TFTensor]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TFGraph:
    """Operators in execution order with the tensors that they read and write."""

    inputs: list[TFTensor] = field(default_factory=list)
    outputs: list[TFTensor] = field(default_factory=list)
    operators: list[TFOperator] = field(default_factory=list)

    def tensors(self) -> list[TFTensor]:
        """Return every tensor once, inputs first, then in order of use."""
        seen: dict[int, TFTensor] = {id(t): t for t in self.inputs}
        for operator in self.operators:
            for tensor in (*operator.inputs, *operator.outputs):
                seen.setdefault(id(tensor), tensor)
        for tensor in self.outputs:
            seen.setdefault(id(tensor), tensor)
        return list(seen.values())
