# SPDX-License-Identifier: Apache-2.0
"""NASWOT: how differently the activations of an untrained network respond to different images.

Mellor et al., "Neural Architecture Search without Training", ICML 2021, arXiv 2006.04647,
equation 2: the logarithm of the determinant of the kernel of binary activation codes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.scores.probe import probe
from chipfit.scores.registry import register_score

#: A unit is on where the input of one of these is positive; the paper has ReLU alone.
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.ELU)


def code_kernel(codes: Tensor) -> Tensor:
    """Return ``K_ij``, the units that images ``i`` and ``j`` agree in, float64 ``(N, N)``.

    Args:
        codes: Whether a unit is on, ``(N, units)``.
    """
    on = codes.to(torch.float64)
    return on @ on.T + (1 - on) @ (1 - on).T


@register_score(
    "naswot",
    summary="log-determinant of the kernel of binary activation codes",
    source="Mellor et al., ICML 2021, arXiv 2006.04647",
)
def score(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return ``log |det K|``, batch norm using the statistics of the batch.

    Minus infinity where two images have the same code.

    Raises:
        BadInput: There is one image only, or no activation that is a module.
    """
    if len(example) < 2:
        raise BadInput("naswot compares images, and there is one only", "give a batch of them")
    own = probe(net, training=True)
    kernel = torch.zeros(len(example), len(example), dtype=torch.float64)

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        kernel.add_(code_kernel(inputs[0].flatten(1) > 0))

    watched = [module for module in own.modules() if isinstance(module, ACTIVATIONS)]
    if not watched:
        raise BadInput(
            f"{type(net).__name__} has no activation modules that naswot could look at",
            "functional activations leave no trace: use nn.ReLU and the like",
        )
    for module in watched:
        if hasattr(module, "inplace"):
            module.inplace = False
        module.register_forward_hook(watch)
    with torch.no_grad():
        own(example)
    return float(torch.linalg.slogdet(kernel).logabsdet)
