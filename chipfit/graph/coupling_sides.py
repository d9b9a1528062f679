# SPDX-License-Identifier: Apache-2.0
"""Sides of modules, parameters and attributes: how long they are, and how they are narrowed.

``"out"`` and ``"in"`` are sides of modules, ``"param:AXIS"`` of a bare parameter or buffer,
``"attr:NAME"`` (or ``"attr:NAME:ITEM"`` in a tuple) a number that a module has written down, and
``"off:NAME"`` a shortcut that a module takes while an attribute is true.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from chipfit.errors import BadInput

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d,
)  # fmt: skip
NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


def side_sizes(net: nn.Module) -> dict[tuple[str, str], int]:
    """Return the length of every side of every sliceable module and parameter of ``net``."""
    sizes: dict[tuple[str, str], int] = {}
    for name, module in net.named_modules():
        if isinstance(module, CONVOLUTIONS + TRANSPOSED):
            sizes[name, "out"], sizes[name, "in"] = module.out_channels, module.in_channels
        elif isinstance(module, nn.Linear):
            sizes[name, "out"], sizes[name, "in"] = module.out_features, module.in_features
        elif isinstance(module, BATCH_NORMS):
            sizes[name, "out"] = module.num_features
        elif isinstance(module, nn.LayerNorm):
            sizes[name, "out"] = int(module.normalized_shape[-1])
        elif isinstance(module, nn.GroupNorm):
            sizes[name, "out"] = module.num_channels
        elif isinstance(module, nn.PReLU):
            sizes[name, "out"] = module.num_parameters
        for key, value in numbers_of(module).items():
            sizes[name, key] = value
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        for axis, size in enumerate(tensor.shape):
            sizes[name, f"param:{axis}"] = size
    return sizes


def numbers_of(module: nn.Module) -> dict[str, int]:
    """Return the sides that are numbers or switches written down in a user's module."""
    if type(module).__module__.startswith("torch.nn."):
        return {}
    found: dict[str, int] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if isinstance(value, bool):
            found[f"off:{name}"] = 1 + value
        elif isinstance(value, int) and value > 1:
            found[f"attr:{name}"] = value
        elif isinstance(value, tuple | list) and value and all(type(v) is int for v in value):
            found |= {f"attr:{name}:{i}": v for i, v in enumerate(value)}
    return found


def narrow_side(net: nn.Module, module: str, side: str, kept: torch.Tensor) -> None:
    """Keep the indices ``kept`` of one side, in place.

    Raises:
        BadInput: The module cannot be narrowed.
    """
    if side.startswith("param:"):
        owner, _, leaf = module.rpartition(".")
        _take(net.get_submodule(owner), leaf, int(side[6:]), kept)
    elif side.startswith(("attr:", "off:")):
        _write(net.get_submodule(module), side, len(kept))
    else:
        _narrow_module(net.get_submodule(module), side, kept)


def _write(module: nn.Module, side: str, count: int) -> None:
    kind, name, *item = side.split(":")
    value: Any = False if kind == "off" else count
    if item:
        old = getattr(module, name)
        parts = [value if i == int(item[0]) else part for i, part in enumerate(old)]
        value = type(old)(parts)
    setattr(module, name, value)


def _narrow_module(module: nn.Module, side: str, keep: torch.Tensor) -> None:
    count = len(keep)
    if isinstance(module, CONVOLUTIONS):
        _narrow_convolution(module, side, keep)
    elif isinstance(module, TRANSPOSED):
        if module.groups > 1:
            raise BadInput(f"a grouped {type(module).__name__} cannot be sliced")
        _take(module, "weight", 1 if side == "out" else 0, keep)
        if side == "out":
            module.out_channels = count
            _take(module, "bias", 0, keep)
        else:
            module.in_channels = count
    elif isinstance(module, nn.Linear):
        _take(module, "weight", 0 if side == "out" else 1, keep)
        if side == "out":
            module.out_features = count
            _take(module, "bias", 0, keep)
        else:
            module.in_features = count
    elif isinstance(module, NORMS):
        _narrow_norm(module, keep)
    else:
        raise BadInput(f"{type(module).__name__} cannot be sliced")


def _narrow_convolution(module: Any, side: str, keep: torch.Tensor) -> None:
    count, each = len(keep), module.in_channels // module.groups
    if module.groups == module.in_channels == module.out_channels and module.groups > 1:
        # Depthwise: both sides are one, and an "in" edit names what "out" already says.
        if side == "out":
            module.groups = module.in_channels = module.out_channels = count
            _take(module, "weight", 0, keep)
            _take(module, "bias", 0, keep)
    elif side == "out":
        module.out_channels = count
        _take(module, "weight", 0, keep)
        _take(module, "bias", 0, keep)
    else:
        within = keep[keep // each == keep[0] // each] % each
        groups = len(torch.unique(keep // each))
        if len(within) * groups != count:
            raise BadInput("a grouped convolution must keep the same channels of every group")
        module.in_channels, module.groups = count, groups
        _take(module, "weight", 1, within)


def _narrow_norm(module: Any, keep: torch.Tensor) -> None:
    count = len(keep)
    if isinstance(module, nn.PReLU):
        if module.num_parameters > 1:
            module.num_parameters = count
            _take(module, "weight", 0, keep)
        return
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (*module.normalized_shape[:-1], count)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = count
    else:
        module.num_features = count
    for name in ("weight", "bias", "running_mean", "running_var"):
        _take(module, name, -1, keep)


def _take(module: nn.Module, name: str, axis: int, keep: torch.Tensor) -> None:
    old = getattr(module, name, None)
    if old is None:
        return
    new = old.detach().index_select(axis, keep.to(old.device)).clone()
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, name, new)
