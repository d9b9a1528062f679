# SPDX-License-Identifier: Apache-2.0
"""``reconstruct``: weights of a narrower network that make what the original makes, in closed form.

He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv
1707.06168, section 3.1: after channels are gone, the weights that read the others are the least
squares solution for the outputs of the original. Our variant: all convolutions (depthwise and
grouped ones too) and linear layers, in the order in which they run, each from the inputs that the
layers solved before it give, towards the original's outputs before any activation; regularised
towards the weights that were sliced; the mean is taken up by the bias or the batch norm behind,
which also gets new statistics. Where a layer's output is added to something that is there already,
as at the end of a residual branch, it is the sum that is to be the original's (section 3.2 there).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.additions import Summands, additions_of
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
from chipfit.rewrite.solve_layer import factors_of, solve_layer


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
    norms, places = norms or {}, places or {}
    with evaluating(net), evaluating(original):
        sources = _sources(net, original, places)
        if layers is not None:
            sources = {name: own for name, own in sources.items() if name in layers}
        # A layer ends a branch as the one does that it stands for, if the same norm is behind it.
        ends = {
            name: places.get(name, name) for name in sources
            if norms.get(name) == norms.get(places.get(name, name))
        }  # fmt: skip
        there = additions_of(original, norms, list(ends.values()), inputs[:2])
        here = additions_of(net, norms, list(ends), inputs[:2])
        ends = {name: own for name, own in ends.items() if own in there and name in here}
        added = {name: there[own] for name, own in ends.items()}
        wanted = _targets(original, sources, kept, added, inputs, samples)
        for name in places:
            if name in wanted:
                sources[name][0].weight.zero_()
        solved: list[str] = []
        with ExitStack() as stack:
            summands = Summands({n: here[n] for n in ends if n in wanted})
            for name, goal in wanted.items():
                norm = net.get_submodule(norms[name]) if name in norms else None

                def solve(
                    module: nn.Module, args: tuple[Tensor, ...], name: str = name,
                    goal: _Goal = goal, norm: nn.Module | None = norm,
                ) -> None:  # fmt: skip
                    assert isinstance(module, Layer)  # only such layers are hooked
                    with summands.aside():
                        x = input_columns_at(module, args[0], goal.places)
                        target = goal.made_up_for(module, summands.take(name), norm)
                        solve_layer(module, x, target, norm, damping)
                    solved.append(name)

                hook = sources[name][0].register_forward_pre_hook(solve)
                stack.callback(hook.remove)
            with summands:
                net(inputs)
    return solved


@dataclass(frozen=True)
class _Goal:
    """What a layer should make, ``(channels, samples)``, at which places, and what is added."""

    places: Tensor
    made: Tensor
    added: Tensor | None

    def made_up_for(self, layer: Layer, added: Tensor | None, norm: nn.Module | None) -> Tensor:
        """Return what it should make where something else is added now."""
        if added is None or self.added is None:
            return self.made
        now = output_columns(layer, added, 1)[0]
        if len(now) != len(self.made) or now.shape[1] <= int(self.places[-1]):
            return self.made  # a network that branches on values has made something else
        lost = self.added - now[:, self.places]
        return self.made + lost / factors_of(norm, len(lost))[:, None]


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
    kept: Mapping[str, Sequence[int]], additions: Mapping[str, int], inputs: Tensor, samples: int,
) -> dict[str, _Goal]:  # fmt: skip
    """Return samples of what the layers should make in the channels that stay, and where."""
    calls: Counter[str] = Counter()
    found: dict[str, _Goal] = {}
    summands = Summands(additions)
    with ExitStack() as stack:
        for name, (layer, source) in sources.items():

            def look(
                module: nn.Module, args: tuple[Tensor, ...], result: Tensor, name: str = name,
                layer: Layer = layer,
            ) -> None:  # fmt: skip
                calls[name] += 1
                if calls[name] > 1:
                    return
                with summands.aside():
                    other = summands.take(name)
                    if other is not None and other.shape != result.shape:
                        other = None  # a network that branches on values has made something else
                    places = sample_places(output_columns(layer, result, 1).shape[2], samples, 0)
                    made, added = (
                        None if each is None
                        else _some(output_columns(layer, each, 1)[0], kept.get(name), places)
                        for each in (result, other)
                    )  # fmt: skip
                    assert made is not None  # a layer makes something
                    found[name] = _Goal(places, made, added)

            stack.callback(source.register_forward_hook(look).remove)
        with summands:
            original(inputs)
    return {name: goal for name, goal in found.items() if calls[name] == 1}


def _some(columns: Tensor, channels: Sequence[int] | None, places: Tensor) -> Tensor:
    if channels is not None:
        columns = columns[list(channels)]
    return columns[:, places].clone()
