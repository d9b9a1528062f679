# SPDX-License-Identifier: Apache-2.0
"""Remove channels from a network for real: smaller tensors, same class."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.rewrite.edits import Edit


def side_sizes(net: nn.Module) -> dict[tuple[str, str], int]:
    """Return the length of every side of every sliceable module and parameter of ``net``."""
    sizes: dict[tuple[str, str], int] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            sizes[name, "out"], sizes[name, "in"] = module.out_channels, module.in_channels
        elif isinstance(module, nn.Linear):
            sizes[name, "out"], sizes[name, "in"] = module.out_features, module.in_features
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            sizes[name, "out"] = module.num_features
        elif isinstance(module, nn.LayerNorm):
            sizes[name, "out"] = int(module.normalized_shape[-1])
        elif isinstance(module, nn.PReLU):
            sizes[name, "out"] = module.num_parameters
    for name, parameter in net.named_parameters():
        for axis, size in enumerate(parameter.shape):
            sizes[name, f"param:{axis}"] = size
    return sizes


def slice_channels(net: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Return a copy of ``net`` with the edits applied; ``net`` is not changed.

    Raises:
        BadInput: An edit names a module that is not there, or does not fit it.
    """
    return slice_channels_(copy.deepcopy(net), edits)


def slice_channels_(net: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Apply the edits to ``net`` in place and return it; errors as :func:`slice_channels`.

    Optimisers made before must be made anew: parameters are replaced.
    """
    sizes = side_sizes(net)
    for edit in edits:
        size = sizes.get((edit.module, edit.side))
        if size is None:
            raise BadInput(
                f"edit of {edit.module} ({edit.side}): the network has no such module",
                "replay edits on the class and the arguments they were made for",
            )
        if size != edit.size or not edit.keep or max(edit.keep) >= size:
            raise BadInput(
                f"edit of {edit.module} ({edit.side}) is for {edit.size} channels, not {size}"
            )
    for edit in edits:
        keep = torch.tensor(edit.keep)
        if edit.side.startswith("param:"):
            owner, _, leaf = edit.module.rpartition(".")
            _take(net.get_submodule(owner), leaf, int(edit.side[6:]), keep)
        else:
            _slice_module(net.get_submodule(edit.module), edit.side, keep)
    return net


def _slice_module(module: nn.Module, side: str, keep: torch.Tensor) -> None:
    count = len(keep)
    if isinstance(module, nn.Conv2d):
        if module.groups == module.in_channels and module.groups > 1:
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
            module.in_channels = count
            _take(module, "weight", 1, keep)
    elif isinstance(module, nn.Linear):
        if side == "out":
            module.out_features = count
            _take(module, "weight", 0, keep)
            _take(module, "bias", 0, keep)
        else:
            module.in_features = count
            _take(module, "weight", 1, keep)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.num_features = count
        for name in ("weight", "bias", "running_mean", "running_var"):
            _take(module, name, 0, keep)
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (*module.normalized_shape[:-1], count)
        for name in ("weight", "bias"):
            _take(module, name, -1, keep)
    elif isinstance(module, nn.PReLU):
        if module.num_parameters > 1:
            module.num_parameters = count
            _take(module, "weight", 0, keep)
    else:
        raise BadInput(f"{type(module).__name__} cannot be sliced")


def _take(module: nn.Module, name: str, axis: int, keep: torch.Tensor) -> None:
    old = getattr(module, name)
    if old is None:
        return
    new = old.detach().index_select(axis, keep.to(old.device)).clone()
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, name, new)
