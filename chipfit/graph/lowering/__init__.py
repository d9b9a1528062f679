# SPDX-License-Identifier: Apache-2.0
"""Handlers that turn PyTorch calls into operators, by family; importing this registers all."""

from chipfit.graph.lowering import attention, elementwise, layers, shapes

__all__ = ["attention", "elementwise", "layers", "shapes"]
