# SPDX-License-Identifier: Apache-2.0
"""The number of non-linear units: elements that pass through a non-linear activation.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562, treat where and how
many non-linearities there are as a design variable. That every element counts once, whatever the
function, is our reconstruction.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from chipfit.graph import Workload, trace
from chipfit.scores.registry import register_score

#: Kinds of operators that bend every element without being called an activation.
_BENDING = ("clamp", "maximum", "minimum")


def non_linear_units(workload: Workload) -> int:
    """Return the elements that non-linear activations compute in one forward pass.

    Activations fused behind an operator count as free-standing ones do; so do ``clamp``,
    ``maximum`` and ``minimum``, with which activations are written by hand. Max pooling, softmax,
    norms and arithmetic are not counted.

    Args:
        workload: Of one image.

    >>> from chipfit.graph import Node, make_op
    >>> op = make_op("linear", [(1, 8)], (1, 4), bias=True, activation="relu")
    >>> node = Node("fc", op, ("x",), "y")
    >>> non_linear_units(Workload((node,), ("x",), ("y",), {"x": (1, 8), "y": (1, 4)}))
    4
    """
    return sum(
        math.prod(node.op.output)
        for node in workload.nodes
        if node.op.activation != "none" or node.op.kind in _BENDING
    )


@register_score(
    "non_linear_units",
    summary="elements that pass through a non-linear activation",
    source="Bhardwaj et al., 2022, arXiv 2208.08562",
)
def score(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return the non-linear units of one image."""
    return float(non_linear_units(trace(net, example[:1])))
