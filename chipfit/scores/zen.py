# SPDX-License-Identifier: Apache-2.0
"""Zen-Score: how far a small change of the input carries, batch norm's rescaling undone.

Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021,
arXiv 2102.01063, algorithm 1. Where features end and the classifier begins is found as the last
image-shaped output of a module, and shortcuts stay in the network: our reconstruction.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.scores.probe import NORMS, WEIGHTED, probe
from chipfit.scores.registry import register_score

#: Of the change of the input, in units of its standard deviation.
STEP = 0.01
#: Pairs of batches that the mean is taken over.
REPEATS = 2


@register_score(
    "zen",
    summary="log of how far a small change of a random input carries",
    source="Lin et al., ICCV 2021, arXiv 2102.01063",
)
def score(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return the mean over draws of ``log E|f(x) - f(x + 0.01 e)| + sum of log sigma_BN``.

    Weights, ``x`` and ``e`` are standard normal; of ``example`` only the shape matters.

    Raises:
        BadInput: No module of the network returns feature maps ``(N, C, H, W)``.
    """
    own = probe(net, training=True)
    draw = torch.Generator().manual_seed(seed)
    seen: dict[str, Any] = {}

    def norm(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
        seen["scale"] += 0.5 * math.log(float(inputs[0].var(axes, correction=0).mean()) + 1e-12)

    def features(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            seen["features"] = output.clone()

    for module in own.modules():
        if isinstance(module, NORMS):
            module.register_forward_hook(norm)
        if not list(module.children()):
            module.register_forward_hook(features)
    scores = []
    with torch.no_grad():
        for _ in range(REPEATS):
            _draw_weights(own, draw)
            start = torch.randn(example.shape, generator=draw)
            change = STEP * torch.randn(example.shape, generator=draw)
            ends = []
            for images in (start, start + change):
                seen["scale"] = 0.0
                own(images)
                if "features" not in seen:
                    raise BadInput(f"no module of {type(net).__name__} returns feature maps")
                ends.append(seen["features"])
            distance = float((ends[0] - ends[1]).abs().sum((1, 2, 3)).mean())
            scores.append(math.log(distance + 1e-12) + seen["scale"])
    return sum(scores) / len(scores)


def _draw_weights(net: nn.Module, draw: torch.Generator) -> None:
    for module in net.modules():
        if isinstance(module, WEIGHTED):
            module.weight.normal_(generator=draw)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, NORMS):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
