# SPDX-License-Identifier: Apache-2.0
"""Layer normalisation over the channels that stay, as the sliced network will compute it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.train.randomness import generator

_NAME = "kept_channels"


def mask_layer_norm(norm: nn.LayerNorm) -> None:
    """Let a layer norm take mean and variance over its kept channels only, all of them at first.

    Channels that do not stay are normalised with the statistics of those that do.

    Raises:
        BadInput: The module normalises neither the last nor the first axis after the batch.
    """
    like = next(norm.parameters(), torch.zeros(()))
    kept = torch.ones(norm.normalized_shape[-1], dtype=like.dtype, device=like.device)
    axis = _channel_axis(norm)
    norm.register_buffer(_NAME, kept)
    norm.register_forward_hook(_last_axis if axis == -1 else _first_axis)


def keep_channels(norm: nn.Module, kept: Tensor) -> None:
    """Say which channels of a layer norm stay, ``(C,)`` of 0 and 1."""
    getattr(norm, _NAME).copy_(kept)


def _last_axis(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    kept = getattr(module, _NAME)
    return output if bool(kept.all()) else _over_kept(module, inputs[0], kept)


def _first_axis(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    kept = getattr(module, _NAME)
    if bool(kept.all()):
        return output
    return _over_kept(module, inputs[0].permute(0, 2, 3, 1), kept).permute(0, 3, 1, 2)


def _over_kept(norm: Any, x: Tensor, kept: Tensor) -> Tensor:
    axes = tuple(range(-len(norm.normalized_shape), 0))
    others = 1
    for size in norm.normalized_shape[:-1]:
        others *= size
    count = kept.sum() * others
    mean = (x * kept).sum(axes, keepdim=True) / count
    centred = x - mean
    variance = (centred.square() * kept).sum(axes, keepdim=True) / count
    found = centred * torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        found = found * norm.weight
    return found if norm.bias is None else found + norm.bias


def _channel_axis(norm: nn.LayerNorm) -> int:
    """Return -1 or 1; subclasses that permute are found out by what they compute."""
    if type(norm).forward is nn.LayerNorm.forward:
        return -1
    like = next(norm.parameters(), torch.zeros(()))
    channels = norm.normalized_shape[-1]
    for axis, shape in ((1, (2, channels, 3, 5)), (-1, (2, 3, 5, channels))):
        x = torch.randn(shape, generator=generator(0)).to(like)
        try:
            with torch.no_grad():
                found = norm(x)
                moved = x.permute(0, 2, 3, 1) if axis == 1 else x
                wanted = _over_kept(norm, moved, torch.ones(channels).to(like))
        except (RuntimeError, IndexError):
            continue
        wanted = wanted.permute(0, 3, 1, 2) if axis == 1 else wanted
        if found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4):
            return axis
    raise BadInput(f"it is not known which axis {type(norm).__name__} normalises")
