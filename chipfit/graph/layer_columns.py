# SPDX-License-Identifier: Apache-2.0
"""Convolutions and linear layers as matrices: what they read and make, column by column.

A layer of ``groups`` groups makes ``W X + b``, group by group, where a column of ``X`` is all that
one output position reads: ``(groups, K, samples)`` with ``K`` the inputs of a group times the
kernel's area, ordered as in ``weight``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = nn.Conv2d | nn.Linear

#: Least squares over more inputs of a layer than this would take gigabytes.
LARGEST = 8192
#: Images whose columns are in memory at once where only some are asked for.
CHUNK = 16


def is_matrix_layer(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer or a zero-padded convolution, and nothing more."""
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def matrix_of(module: Layer) -> Tensor:
    """Return the weights as ``(groups, outputs of a group, K)``."""
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    return module.weight.reshape(groups, module.weight.shape[0] // groups, -1)


def input_columns(module: Layer, inputs: Tensor) -> Tensor:
    """Return what each output position reads, ``(groups, K, samples)``.

    Args:
        module: For which :func:`is_matrix_layer` holds.
        inputs: ``(N, C, H, W)`` for a convolution, ``(..., features)`` for a linear layer.
    """
    if isinstance(module, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1]).T[None]
    padding = module.padding
    assert not isinstance(padding, str)  # no matrix layer
    found = F.unfold(inputs, module.kernel_size, module.dilation, padding, module.stride)
    count, rows, places = found.shape
    split = found.reshape(count, module.groups, rows // module.groups, places)
    return split.permute(1, 2, 0, 3).reshape(module.groups, rows // module.groups, -1)


def input_columns_at(module: Layer, inputs: Tensor, places: Tensor) -> Tensor:
    """Return some columns of :func:`input_columns`, without ever holding all of them.

    Args:
        module: For which :func:`is_matrix_layer` holds.
        inputs: As there.
        places: Which columns, ascending.
    """
    if isinstance(module, nn.Linear):
        return input_columns(module, inputs)[:, :, places]
    found, done = [], 0
    for chunk in inputs.split(CHUNK):
        columns = input_columns(module, chunk)
        after = done + columns.shape[2]
        found.append(columns[:, :, places[(places >= done) & (places < after)] - done])
        done = after
    return torch.cat(found, 2)


def output_columns(module: Layer, outputs: Tensor, groups: int | None = None) -> Tensor:
    """Return what each output position holds, ``(groups, outputs of a group, samples)``.

    Args:
        module: What made them, or a narrower or wider version of it.
        outputs: ``(N, C, H, W)`` or ``(..., features)``.
        groups: Where not the module's own.
    """
    if isinstance(module, nn.Linear):
        return outputs.reshape(-1, outputs.shape[-1]).T[None]
    groups = groups or module.groups
    count, channels = outputs.shape[:2]
    split = outputs.reshape(count, groups, channels // groups, -1)
    return split.permute(1, 2, 0, 3).reshape(groups, channels // groups, -1)


def sample_places(samples: int, most: int, seed: int) -> Tensor:
    """Return at most ``most`` of ``samples`` columns, drawn without repetition, ascending."""
    if samples <= most:
        return torch.arange(samples)
    drawn = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return drawn[:most].sort().values
