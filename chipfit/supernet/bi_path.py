# SPDX-License-Identifier: Apache-2.0
"""``BiPath``: one block at two widths of a grid at once, for the memory of the wider.

PruNet's search of hidden widths: Kierat et al., "Tiered Pruning for Efficient Differentiable
Inference-Aware Neural Architecture Search", arXiv 2209.11785. The paper has two copies of a block
whose widths approach each other; how the window moves, and that both are slices of one copy, is our
variant of it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.squeeze_excite import SqueezeExcite
from chipfit.supernet.window import Window


class BiPath(nn.Module):
    """An inverted residual, or a fused one, at the two widths of a window.

    There is one copy of the weights, of the largest width; a width is its first channels. Up to the
    projection, channels do not see each other, so what the narrower side computes there is part of
    what the wider one does, and is computed and kept once. Squeeze-excite, which mixes channels,
    and the projection run per side. Batch norms inside are shared, as their statistics are a
    channel's own; behind the projection every side has a batch norm, and a move gives the loser's
    side a copy of the winner's, which then follows its own width. Statistics of a derived block
    want :func:`~chipfit.train.batchnorm.recalibrate_batchnorm`.

    Args:
        block: The block at the largest width.
        widths: Hidden channels, ascending.
        shapes: Of all parameters and buffers of the block, by width.
    """

    def __init__(
        self, block: nn.Module, widths: Sequence[int], shapes: Sequence[Mapping[str, torch.Size]]
    ) -> None:
        super().__init__()
        self.block, self.widths, self.shapes = block, tuple(widths), tuple(shapes)
        self.window = Window.whole(len(self.widths))
        #: Batch norm of the narrower side; the block's own is the wider's.
        self.low: nn.BatchNorm2d | None = copy.deepcopy(self._parts()[3])

    def _parts(
        self,
    ) -> tuple[list[ConvBNAct], SqueezeExcite | None, nn.Conv2d, nn.BatchNorm2d]:
        """Return layers without contact between channels, squeeze-excite, projection, its norm."""
        parts = list(self.block.conv)  # type: ignore[arg-type]
        end = [parts.pop()]
        end = list(end[0]) if isinstance(end[0], ConvBNAct) else [parts.pop(), *end]
        gate = parts.pop() if isinstance(parts[-1], SqueezeExcite) else None
        return parts, gate, end[0], end[1]

    def forward(self, x: Tensor, weights: Tensor | None = None, side: int = 1) -> Tensor:
        """Map ``(N, C_in, H, W)`` to the weighted sum of both sides, or to one side.

        Args:
            x: Input.
            weights: ``(2,)``, of the narrower and the wider side; ``None`` runs one side.
            side: Which one, 0 or 1; a settled window has no other.
        """
        pair = self.window.lo, self.window.hi
        positions = pair if weights is not None else (pair[side],)
        norms = self._norms() if weights is not None else (self._norms()[side],)
        layers, gate, project, _ = self._parts()
        hidden = x
        for layer in layers:
            hidden = _sliced(layer, hidden, self.widths[positions[-1]])
        total: Tensor | None = None
        y: Tensor | None = None
        ends = [self.widths[position] for position in positions]
        # Split, not sliced: the gradient of all parts together is then one tensor, made once.
        own = [ends[0], *(b - a for a, b in pairwise(ends))]
        parts = hidden.split(own, 1) if gate is None else ()
        kernels = project.weight[:, : ends[-1]].split(own, 1) if gate is None else ()
        for i, (position, norm) in enumerate(zip(positions, norms, strict=True)):
            if gate is None:  # the wider side adds its own channels to the narrower's sum
                more = functional.conv2d(parts[i], kernels[i])
                y = more if y is None else y + more
            else:
                width = ends[i]
                y = functional.conv2d(
                    self._gated(gate, hidden[:, :width], position), project.weight[:, :width]
                )
            scale = None if weights is None else weights[i].to(y.dtype)
            # The weight is part of the batch norm's: its output need not be kept for a gradient.
            term = _normalised(norm, y, len(norm.weight), scale)
            total = term if total is None else total + term
        assert total is not None  # there is at least one side
        if not self.block.residual:
            return total
        return total + (x if weights is None else x * weights.sum().to(x.dtype))

    def _norms(self) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
        own = self._parts()[3]
        return (own if self.low is None else self.low), own

    def _gated(self, gate: SqueezeExcite, hidden: Tensor, position: int) -> Tensor:
        width = self.widths[position]
        inside = next(s for n, s in self.shapes[position].items() if "conv_reduce.weight" in n)[0]
        mean = gate.pool(hidden)
        reduce, expand = gate.conv_reduce, gate.conv_expand
        z = functional.conv2d(mean, reduce.weight[:inside, :width], _head(reduce.bias, inside))
        z = functional.conv2d(
            gate.act1(z), expand.weight[:width, :inside], _head(expand.bias, width)
        )
        return hidden * gate.gate(z)

    def state_at(self, position: int) -> dict[str, Tensor]:
        """Return the state of the block at a width of the grid, as slices of the shared one.

        Outside of the window the batch norm is that of the nearer side.
        """
        full = self.block.state_dict()
        if abs(position - self.window.lo) < abs(position - self.window.hi):
            full |= dict(zip(self._norm_names(), self._norms()[0].state_dict().values()))
        return {name: first(full[name], shape) for name, shape in self.shapes[position].items()}

    @torch.no_grad()
    def start_from(self, module: nn.Module, position: int) -> None:
        """Take the weights of the same block at a width of the grid for the first channels."""
        own = self.block.state_dict()
        for name, value in module.state_dict().items():
            first(own[name], value.shape).copy_(value)
        if self.low is not None:
            self.low.load_state_dict(self._parts()[3].state_dict())

    def move(self, window: Window, up: bool) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Go to a window that the wider (``up``) or the narrower side has won.

        Returns:
            Pairs ``(winner's, loser's)`` of parameters of which the second is now a copy.
        """
        low, own = self._norms()
        winner, loser = (own, low) if up else (low, own)
        if winner is not loser:
            loser.load_state_dict(winner.state_dict())
        self.adopt(window)
        return list(zip(winner.parameters(), loser.parameters())) if winner is not loser else []

    def adopt(self, window: Window) -> None:
        """Take a window as it is, as after a restart."""
        self.window = window
        if window.settled:
            self.low = None

    def active_shapes(self) -> list[tuple[nn.Parameter, torch.Size]]:
        """Return the parameters with channels that neither side runs, and the part that runs."""
        shapes = self.shapes[self.window.hi]
        named = self.block.named_parameters()
        return [(p, shapes[name]) for name, p in named if shapes[name] != p.shape]

    def _norm_names(self) -> list[str]:
        norm = self._parts()[3]
        prefix = next(name for name, m in self.block.named_modules() if m is norm)
        return [f"{prefix}.{name}" for name in norm.state_dict()]


def _sliced(layer: ConvBNAct, x: Tensor, width: int) -> Tensor:
    """Run the first ``width`` channels of a convolution, its batch norm and activation."""
    children = dict(layer.named_children())
    conv, norm = children["0"], children["1"]
    assert isinstance(conv, nn.Conv2d)  # as ConvBNAct names them
    assert isinstance(norm, nn.BatchNorm2d)
    if "pad" in children:
        x = children["pad"](x)
    groups = 1 if conv.groups == 1 else width
    y = functional.conv2d(
        x, _part(conv.weight, width), None, conv.stride, conv.padding, conv.dilation, groups
    )
    y = _normalised(norm, y, width)
    return children["2"](y) if "2" in children else y


def _normalised(norm: nn.BatchNorm2d, x: Tensor, width: int, scale: Tensor | None = None) -> Tensor:
    """Apply the first channels of a batch norm as its own forward pass does, times ``scale``."""
    tracked, factor = norm.track_running_stats, norm.momentum
    if norm.training and tracked and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        factor = 1.0 / float(norm.num_batches_tracked) if factor is None else factor
    read = tracked or not norm.training
    mean, var = _head(norm.running_mean, width), _head(norm.running_var, width)
    weight, bias = _part(norm.weight, width), _part(norm.bias, width)
    if scale is not None:
        weight, bias = weight * scale, bias * scale
    return functional.batch_norm(
        x, mean if read else None, var if read else None, weight, bias,
        norm.training or mean is None, factor or 0.0, norm.eps,
    )  # fmt: skip


def _head(values: Tensor | None, width: int) -> Tensor | None:
    return None if values is None else _part(values, width)


def _part(values: Tensor, width: int) -> Tensor:
    # A slice of everything would cost a copy of the gradient.
    return values if len(values) == width else values[:width]


def first(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the leading part of that shape, as a view."""
    return values[tuple(slice(size) for size in shape)]
