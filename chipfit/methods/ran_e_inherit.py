# SPDX-License-Identifier: Apache-2.0
"""The network of a pattern with the weights that a gated network has learned.

A linearised block takes the dense kernel of its linear path; a block that stays but shrinks keeps
the hidden channels of largest magnitude and the middle of its kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.blocks import ActivatedBlock, ConvSite
from chipfit.methods.ran_e_options import BlockOption
from chipfit.rewrite.replay import replay
from chipfit.rewrite.swap import Swap
from chipfit.supernet.folding import apart, folded, take_norm
from chipfit.supernet.gated_network import GatedNetwork


def edits_of(chosen: Mapping[str, BlockOption]) -> tuple[Swap, ...]:
    """Return the edits of a pattern, in the order of its blocks."""
    return tuple(o.swap for o in chosen.values() if o.swap is not None)


@torch.no_grad()
def inherit(
    net: nn.Module,
    gated: GatedNetwork,
    blocks: Sequence[ActivatedBlock],
    chosen: Mapping[str, BlockOption],
) -> nn.Module:
    """Return the network of a pattern; outside of changed blocks its weights are the gated ones.

    Args:
        net: The original; it is not changed.
        gated: The gated network made from it.
        blocks: Its blocks, gated or not.
        chosen: An option by block.

    Raises:
        BadInput: A linearised block has no gate, hence no linear path.
    """
    derived = replay(net, edits_of(chosen))
    paths = {block.module for block in gated.blocks}
    by_name = {block.module: block for block in blocks}
    source = gated.net.state_dict()
    state = derived.state_dict()
    swapped = {name for name, option in chosen.items() if option.swap is not None}
    for name in state:
        owner = next((m for m in by_name if name.startswith(f"{m}.")), None)
        if owner in swapped:
            continue
        inner = owner in paths
        state[name] = source[name.replace(f"{owner}.", f"{owner}.kept.", 1) if inner else name]
    derived.load_state_dict(state)
    for name in swapped:
        option, module = chosen[name], derived.get_submodule(name)
        if option.linear:
            if name not in paths:
                raise BadInput(f"{name} has no linear path to inherit from")
            swap = option.swap
            assert swap is not None  # swapped holds such options only
            path = gated.gated(name).linear
            module.load_state_dict(path.collapsed_state(int(swap.options["kernel"])))
        else:
            _narrow(module, gated.net, by_name[name], f"{name}.kept" if name in paths else name)
    return derived


def _narrow(module: nn.Module, net: nn.Module, block: ActivatedBlock, place: str) -> None:
    """Fill an inverted residual from a larger one that stands at ``place`` of ``net``."""
    sites = [_moved(site, block.module, place) for site in block.convs]
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = _largest(net, sites, convs[-1].in_channels)
    for i, (conv, norm, site) in enumerate(zip(convs, norms, sites, strict=True)):
        (weight, bias), own = apart(net, site)
        last = i == len(sites) - 1
        weight = weight[:, kept] if last else weight[kept]
        margin = (site.kernel - conv.kernel_size[0]) // 2
        if margin:
            weight = weight[:, :, margin:-margin, margin:-margin]
        conv.weight.copy_(weight)
        take_norm(norm, own, bias, None if last else kept)


def _moved(site: ConvSite, block: str, place: str) -> ConvSite:
    def moved(name: str) -> str:
        return place + name[len(block) :] if name else name

    return replace(site, module=moved(site.module), norm=moved(site.norm))


def _largest(net: nn.Module, sites: Sequence[ConvSite], count: int) -> Tensor:
    """Return the hidden channels with the largest weights, ascending; ties keep the lower index.

    A channel's weight is the product of the L2 norms of what makes it, filters it and reads it,
    batch norms folded in.
    """
    score: Tensor | None = None
    for i, site in enumerate(sites):
        weight = folded(net, site)[0].double()
        norms = weight.transpose(0, 1) if i == len(sites) - 1 else weight
        own = norms.flatten(1).norm(dim=1)
        score = own if score is None else score * own
    assert score is not None  # a block has at least two convolutions
    order = sorted(range(len(score)), key=lambda c: (-float(score[c]), c))
    return torch.tensor(sorted(order[:count]))
