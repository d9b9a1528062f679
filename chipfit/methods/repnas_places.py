# SPDX-License-Identifier: Apache-2.0
"""Where in a network parallel branches stand, or can stand: RepNAS's places."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from chipfit.blocks.conv_bn_act import ACTIVATION_MODULES
from chipfit.blocks.rep_branches import BRANCHES, RepBranches
from chipfit.blocks.rep_vgg_block import RepVGGBlock
from chipfit.errors import BadInput
from chipfit.space.branches import BranchPlace
from chipfit.train.randomness import private_global_stream, seed_global_stream, stream_seed

_ACTIVATIONS = {kind: name for name, kind in ACTIVATION_MODULES.items()}


def find_places(net: nn.Module, keep: Sequence[str] = ()) -> tuple[BranchPlace, ...]:
    """Return the places of a network, in the order in which it holds them.

    They are blocks of branches, RepVGG blocks, and sequences of a dense 3x3 convolution, batch norm
    and, unless there is none, one of the activations of :data:`ACTIVATION_MODULES`.

    Args:
        net: The network.
        keep: Prefixes of modules to leave alone.

    Raises:
        BadInput: There is no such place.
    """
    found: list[BranchPlace] = []
    for name, module in net.named_modules():
        inside = any(name.startswith(f"{place.module}.") for place in found)
        if not name or inside or name.startswith(tuple(keep) or ("\0",)):
            continue
        place = _place(name, module)
        if place is not None:
            found.append(place)
    if not found:
        raise BadInput(
            f"{type(net).__name__} has no place for parallel branches"
            + (f" outside of {', '.join(keep)}" if keep else ""),
            "repnas takes rep_branches and RepVGG blocks, and nn.Sequential(3x3 convolution, "
            "batch norm, activation) padded by 1; tiny_rep_branches and rep_branches_a0 have them",
        )
    return tuple(found)


def _place(name: str, module: nn.Module) -> BranchPlace | None:
    if isinstance(module, RepBranches):
        own = BRANCHES if module.deploy else module.branch_names
        return BranchPlace(
            name, module.in_channels, module.out_channels, module.stride, own, module.act_name
        )
    if isinstance(module, RepVGGBlock):
        conv = module.rbr_reparam if module.deploy else module.rbr_dense.conv
        return BranchPlace(
            name, conv.in_channels, conv.out_channels, module.stride, BRANCHES, "relu"
        )
    parts = list(module.children()) if isinstance(module, nn.Sequential) else []
    if len(parts) not in (2, 3) or not _merges(parts[0], parts[1]):
        return None
    if len(parts) == 3 and type(parts[2]) not in _ACTIVATIONS:
        return None
    first = parts[0]
    assert isinstance(first, nn.Conv2d)  # _merges looked
    act = "none" if len(parts) == 2 else _ACTIVATIONS[type(parts[2])]
    return BranchPlace(name, first.in_channels, first.out_channels, first.stride[0], BRANCHES, act)


def _merges(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        isinstance(conv, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and conv.kernel_size == (3, 3)
        and conv.padding == (1, 1)
        and conv.stride in ((1, 1), (2, 2))
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and norm.affine
        and norm.track_running_stats
    )


def with_branches(net: nn.Module, places: Sequence[BranchPlace], seed: int) -> nn.Module:
    """Return a copy of a network with a block of branches at every place.

    Blocks of branches stay as they are. Elsewhere the 3x3 branch takes the convolution and its
    batch norm; where there is none, as behind merged ones, the kernel alone, because batch
    statistics will decide its scale. RepVGG blocks also give their 1x1 branch and identity. All
    else is freshly drawn.

    Args:
        net: The network; it is not changed.
        places: Of :func:`find_places`.
        seed: Of what is drawn.
    """
    made = copy.deepcopy(net)
    with private_global_stream(), torch.no_grad():
        for place in places:
            old = made.get_submodule(place.module)
            if isinstance(old, RepBranches) and not old.deploy:
                continue
            seed_global_stream(seed, stream_seed(place.module))
            new = RepBranches(
                place.in_channels, place.out_channels, place.stride, branches=place.branches,
                act=place.act,
            )  # fmt: skip
            like = next(old.parameters())
            new = new.to(like.device, like.dtype).train(old.training)
            _inherit(new, old)
            made.set_submodule(place.module, new)
    return made


def _inherit(new: RepBranches, old: nn.Module) -> None:
    dense, point = (list(new.branches[name].children()) for name in ("3x3", "1x1"))
    if isinstance(old, RepBranches):
        dense[0].load_state_dict({"weight": old.conv.weight})
        if old.norm is not None:
            dense[1].load_state_dict(old.norm.state_dict())
    elif isinstance(old, RepVGGBlock) and old.deploy:
        dense[0].load_state_dict({"weight": old.rbr_reparam.weight})
    elif isinstance(old, RepVGGBlock):
        pairs = [*zip(dense, old.rbr_dense, strict=True), *zip(point, old.rbr_1x1, strict=True)]
        if new.identity is not None and old.rbr_identity is not None:
            pairs.append((new.identity, old.rbr_identity))
        for mine, theirs in pairs:
            mine.load_state_dict(theirs.state_dict())
    else:
        conv, norm = list(old.children())[:2]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        mine = dense[1]
        assert isinstance(mine, nn.BatchNorm2d)
        assert mine.running_mean is not None
        dense[0].load_state_dict({"weight": conv.weight})
        mine.load_state_dict(norm.state_dict())
        mine.eps, mine.momentum = norm.eps, norm.momentum
        if conv.bias is not None:
            mine.running_mean.sub_(conv.bias)  # the branch's convolution has none
