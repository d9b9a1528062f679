# SPDX-License-Identifier: Apache-2.0
"""SynFlow: the paths through the network, each weighted by the product of its weights.

Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow",
NeurIPS 2020, arXiv 2006.05467, equation 2, summed over the network and without batch norm as in
Abdelfattah et al., ICLR 2021, arXiv 2101.08134.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from chipfit.scores.probe import NORMS, probe, replace_modules, weights
from chipfit.scores.registry import register_score


@register_score(
    "synflow",
    summary="logarithm of the sum of |weight x gradient| of a network of absolute weights",
    source="Tanaka et al., NeurIPS 2020, arXiv 2006.05467",
)
def score(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return ``log(sum of |w * dR/dw|)``, ``R`` the sum of the outputs for an input of ones.

    All weights take their absolute values, and batch norms are left out. ReLU6 would saturate and
    becomes ReLU; that and the logarithm, which keeps the order, are ours. A network whose output
    does not depend on its weights scores minus infinity.
    """
    own = probe(net, training=False).double()
    replace_modules(own, NORMS, nn.Identity)
    replace_modules(own, nn.ReLU6, nn.ReLU)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.abs_()
    ones = torch.ones(1, *example.shape[1:], dtype=torch.float64)
    layers = weights(own)
    found = torch.autograd.grad(own(ones).sum(), layers, allow_unused=True)
    total = sum(
        float((weight.detach() * gradient).abs().sum())
        for weight, gradient in zip(layers, found, strict=True)
        if gradient is not None
    )
    return math.log(total) if total > 0 else -math.inf
