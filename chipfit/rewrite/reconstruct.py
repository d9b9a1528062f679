# SPDX-License-Identifier: Apache-2.0
"""``reconstruct``: weights of a narrower network that make what the original makes, in closed form.

He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv
1707.06168, section 3.1: after channels are gone, the weights that read the others are the least
squares solution for the outputs of the original. Our variant: all convolutions (depthwise and
grouped ones too) and linear layers, in the order in which they run, each from the inputs that the
layers solved before it give, towards the original's outputs before any activation; regularised
towards the weights that were sliced; the mean is taken up by the bias or the batch norm behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.coupling_trace import evaluating
from chipfit.graph.layer_columns import (
    LARGEST,
    Layer,
    input_columns_at,
    is_matrix_layer,
    matrix_of,
    output_columns,
    sample_places,
)
from chipfit.rewrite.edits import Edit


def reconstruct(
    net: nn.Module,
    original: nn.Module,
    edits: Sequence[Edit],
    inputs: Tensor,
    *,
    norms: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
    layers: Container[str] | None = None,
    damping: float = 1e-2,
    samples: int = 16384,
) -> list[str]:
    """Solve the weights of a sliced network layer by layer, in place, in one forward pass.

    Both networks are looked at in evaluation mode. A layer that runs more than once, does more
    than multiply and add, or reads more than :data:`LARGEST` values is left alone.

    Args:
        net: ``original`` with ``edits`` applied (:func:`~chipfit.rewrite.slice_channels`).
        original: The network that the edits count on.
        edits: What was kept.
        inputs: Without labels, ``(N, C, H, W)``, all in one batch.
        norms: The batch norm behind each layer, where there is one
            (:func:`chipfit.graph.norms_behind.norms_behind`).
        places: Layers that the original lacks, as a block was swapped, with the name of the module
            of the original whose output they are to make, channel by channel. They start from
            nothing, not from their weights.
        layers: Names of the layers to solve; all where ``None``.
        damping: Strength of the pull towards the sliced weights, as a share of the inputs' mean
            square.
        samples: Most output positions that a layer is solved from.

    Returns:
        Names of the layers that were solved, in order.

    Raises:
        BadInput: There are no inputs.
    """
    if not len(inputs):
        raise BadInput("reconstruction needs inputs", "give a batch of training images")
    kept = {edit.module: edit.keep for edit in edits if edit.side == "out"}
    with evaluating(net), evaluating(original):
        sources = _sources(net, original, places or {})
        if layers is not None:
            sources = {name: own for name, own in sources.items() if name in layers}
        wanted = _targets(original, sources, kept, inputs, samples)
        solved: list[str] = []
        with torch.no_grad(), ExitStack() as stack:
            for name, (columns, target) in wanted.items():
                module = net.get_submodule(name)
                norm = net.get_submodule(norms[name]) if norms and name in norms else None
                if places and name in places:
                    assert isinstance(module.weight, Tensor)  # sources says so
                    module.weight.zero_()

                def solve(
                    module: nn.Module, args: tuple[Tensor, ...], name: str = name,
                    columns: Tensor = columns, target: Tensor = target,
                    norm: nn.Module | None = norm,
                ) -> None:  # fmt: skip
                    assert isinstance(module, Layer)  # only such layers are hooked
                    x = input_columns_at(module, args[0], columns)
                    _solve(module, x, target, norm, damping)
                    solved.append(name)

                stack.callback(module.register_forward_pre_hook(solve).remove)
            net(inputs)
    return solved


def _sources(
    net: nn.Module, original: nn.Module, places: Mapping[str, str]
) -> dict[str, tuple[Layer, nn.Module]]:
    """Return each layer that can be solved, with the module that makes what it should."""
    modules = dict(original.named_modules())
    found: dict[str, tuple[Layer, nn.Module]] = {}
    for name, module in net.named_modules():
        if not is_matrix_layer(module) or matrix_of(module).shape[2] > LARGEST:
            continue
        if name in places:
            found[name] = module, modules[places[name]]
        elif type(modules.get(name)) is type(module):
            found[name] = module, modules[name]  # type: ignore[assignment]
    return found


def _targets(
    original: nn.Module, sources: Mapping[str, tuple[Layer, nn.Module]],
    kept: Mapping[str, Sequence[int]], inputs: Tensor, samples: int,
) -> dict[str, tuple[Tensor, Tensor]]:  # fmt: skip
    """Return samples of what the layers should make in the channels that stay, and where."""
    calls: Counter[str] = Counter()
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad(), ExitStack() as stack:
        for name, (layer, source) in sources.items():

            def look(
                module: nn.Module, args: tuple[Tensor, ...], result: Tensor, name: str = name,
                layer: Layer = layer,
            ) -> None:  # fmt: skip
                calls[name] += 1
                columns = output_columns(layer, result, 1)[0]
                if name in kept:
                    columns = columns[list(kept[name])]
                places = sample_places(columns.shape[1], samples, 0)
                found[name] = places, columns[:, places].clone()

            stack.callback(source.register_forward_hook(look).remove)
        original(inputs)
    return {name: target for name, target in found.items() if calls[name] == 1}


def _solve(
    module: Layer, x: Tensor, target: Tensor, norm: nn.Module | None, damping: float
) -> None:
    """Set the weights that make ``target``, ``(outputs, samples)``, best from ``x``."""
    before = matrix_of(module).double()
    y = target.reshape(len(x), before.shape[1], -1)
    shift = isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_mean is not None
    centred = module.bias is not None or shift
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
    elif shift:
        norm.running_mean.sub_(rest)  # type: ignore[union-attr, operator]
