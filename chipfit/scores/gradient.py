# SPDX-License-Identifier: Apache-2.0
"""Gradient norm and SNIP: how much the loss of the untrained network depends on its weights.

SNIP: Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
ICLR 2019, arXiv 1810.02340, equation 5, summed over the network as in Abdelfattah et al.,
"Zero-Cost Proxies for Lightweight NAS", ICLR 2021, arXiv 2101.08134, which also proposes the norm.
Labels are drawn at random here, so that no data set is needed: our reconstruction.
"""

from __future__ import annotations

import torch
from torch import nn

from chipfit.scores.probe import gradients, probe
from chipfit.scores.registry import register_score


@register_score(
    "grad_norm",
    summary="sum of the layers' gradient norms",
    source="Abdelfattah et al., ICLR 2021, arXiv 2101.08134",
)
def grad_norm(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return the sum over layers of the Euclidean norm of the weights' gradient."""
    found = gradients(probe(net, training=True), example, seed)
    return float(sum(gradient.norm() for _, gradient in found))


@register_score(
    "snip",
    summary="sum of |weight x gradient|",
    source="Lee, Ajanthan and Torr, ICLR 2019, arXiv 1810.02340",
)
def snip(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return the sum of ``|w * dL/dw|`` over all weights."""
    found = gradients(probe(net, training=True), example, seed)
    return float(sum((weight * gradient).abs().sum() for weight, gradient in found))
