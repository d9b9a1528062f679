# SPDX-License-Identifier: Apache-2.0
"""Least squares for one layer: the weights that make given outputs best from given inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.graph.layer_columns import Layer, matrix_of

#: A batch norm that multiplies by less than this share of its largest factor is not divided by.
SMALLEST = 1e-3

Norm = nn.BatchNorm1d | nn.BatchNorm2d


def solve_layer(
    module: Layer, x: Tensor, target: Tensor, norm: nn.Module | None, damping: float
) -> None:
    """Set the weights of a layer, in place.

    Args:
        module: The layer.
        x: What it reads, ``(groups, K, samples)``.
        target: What it should make, before its batch norm, ``(outputs, samples)``.
        norm: The batch norm behind it, if there is one. It takes up the mean, and gets the
            statistics of what the layer makes now, so that it does the same in training mode.
        damping: Strength of the pull towards the present weights, as a share of the inputs' mean
            square.
    """
    before = matrix_of(module).double()
    y = target.reshape(len(x), before.shape[1], -1)
    fitting = norm if isinstance(norm, Norm) and norm.running_mean is not None else None
    centred = module.bias is not None or fitting is not None
    mean_x = x.mean(2, keepdim=True) if centred else torch.zeros_like(x[:, :, :1])
    mean_y = y.mean(2, keepdim=True) if centred else torch.zeros_like(y[:, :, :1])
    x = (x - mean_x).transpose(1, 2)
    moments = (x.transpose(1, 2) @ x).double()
    pull = damping * moments.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    pull = pull + (pull == 0)  # inputs that never vary leave nothing to solve: the weights stay
    left = moments + pull * torch.eye(moments.shape[1], dtype=moments.dtype)
    right = ((y - mean_y) @ x).double() + pull * before
    after = torch.linalg.solve(left, right.transpose(1, 2)).transpose(1, 2)
    module.weight.copy_(after.reshape(module.weight.shape))
    rest = (mean_y - after @ mean_x.double()).flatten()
    if module.bias is not None:
        module.bias.copy_(rest)
        rest = torch.zeros_like(rest)
    if fitting is not None:
        mean = (after @ mean_x.double()).flatten()
        spread = ((after @ moments) * after).sum(2).flatten() / x.shape[1]
        _refit(fitting, mean if module.bias is None else mean_y.double().flatten(), rest, spread)


def factors_of(norm: nn.Module | None, channels: int) -> Tensor:
    """Return what a batch norm multiplies each channel by in evaluation mode, ``(channels,)``.

    1 where there is none; infinite where it is next to nothing, for nothing can be made up for
    there.
    """
    if not isinstance(norm, Norm) or norm.running_var is None:
        return torch.ones(channels)
    factors = _factors(norm)
    small = factors.abs() < SMALLEST * factors.abs().max()
    return torch.where(small, torch.inf, factors)


def _factors(norm: Norm) -> Tensor:
    assert norm.running_var is not None  # checked by the callers
    weight = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
    return weight / (norm.running_var + norm.eps).sqrt()


def _refit(norm: Norm, mean: Tensor, rest: Tensor, spread: Tensor) -> None:
    """Give a batch norm new statistics; in evaluation mode it adds ``rest`` and else does the same.

    Args:
        norm: In place.
        mean: Of what it reads now, ``(channels,)``.
        rest: What is to be added to that.
        spread: Its variance.
    """
    assert norm.running_mean is not None  # checked by the caller
    if norm.weight is None or norm.bias is None:
        norm.running_mean.sub_(rest)
        return
    factors = _factors(norm).double()
    norm.bias.add_(factors * (mean + rest - norm.running_mean))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(spread)  # type: ignore[union-attr]
    norm.weight.copy_(factors * (spread + norm.eps).sqrt())
