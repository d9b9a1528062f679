# SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-accumulates: what every other training-free score has to beat.

That these two order networks better than most scores was shown by White et al., "A Deeper Look at
Zero-Cost Proxies for Lightweight NAS", ICLR blog track 2022, and by Ning et al., NeurIPS 2021,
arXiv 2008.03064.
"""

from __future__ import annotations

import torch
from torch import nn

from chipfit.graph import trace
from chipfit.scores.registry import register_score


@register_score("params", summary="trainable parameters")
def params(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return the parameters of the network, unfolded; shared ones count once."""
    return float(sum(parameter.numel() for parameter in net.parameters()))


@register_score("macs", summary="multiply-accumulates of one image")
def macs(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return the multiply-accumulates of one image."""
    return float(trace(net, example[:1]).macs)
