# SPDX-License-Identifier: Apache-2.0
"""Copies of a network that a score may change, and gradients on drawn labels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chipfit.errors import BadInput

#: Modules whose weights the gradient scores look at.
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
#: Batch norms of any dimension.
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def probe(net: nn.Module, *, training: bool) -> nn.Module:
    """Return a copy of ``net`` whose parameters all take gradients, in training mode or not."""
    own = copy.deepcopy(net).train(training)
    for module in own.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for parameter in own.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    return own


def replace_modules(net: nn.Module, kinds: type | tuple[type, ...], new: type[nn.Module]) -> None:
    """Put a ``new()`` in the place of every child of one of ``kinds``."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kinds):
                setattr(module, name, new())


def weights(net: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions and linear layers.

    Raises:
        BadInput: There are none.
    """
    found = [module.weight for module in net.modules() if isinstance(module, WEIGHTED)]
    if not found:
        raise BadInput(f"{type(net).__name__} has no convolution and no linear layer")
    return found


def gradients(net: nn.Module, example: Tensor, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return weights with their gradients of the cross-entropy, as double precision tensors.

    Args:
        net: A copy from :func:`probe`.
        example: Images ``(N, C, H, W)``; labels are drawn uniformly.
        seed: Of the labels.

    Raises:
        BadInput: The network does not return logits ``(N, classes)``.
    """
    logits = net(example)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise BadInput(f"{type(net).__name__} does not return logits (N, classes)")
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(logits.shape[1], (len(logits),), generator=draw)
    own = weights(net)
    found = torch.autograd.grad(F.cross_entropy(logits, labels), own, allow_unused=True)
    return [
        (weight.detach().double(), torch.zeros_like(weight) if g is None else g.double())
        for weight, g in zip(own, found, strict=True)
    ]
