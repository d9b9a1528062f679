# SPDX-License-Identifier: Apache-2.0
"""Handlers that turn PyTorch calls into operators, by family; importing this registers all."""

from chipfit.graph.lowering import (
    attention,
    elementwise,
    functions,
    indexing,
    layers,
    pooling,
    reductions,
    shapes,
    windows,
)

__all__ = [
    "attention", "elementwise", "functions", "indexing", "layers", "pooling",
    "reductions", "shapes", "windows",
]  # fmt: skip
