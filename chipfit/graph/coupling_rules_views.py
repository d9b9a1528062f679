# SPDX-License-Identifier: Apache-2.0
"""Rules of operations that move entries: views, slices, concatenations, shuffles, windows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from chipfit.graph.coupling_axes import Axes, Layers, joined, merged
from chipfit.graph.coupling_rules import Flow, Unfollowed, rule


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten")
def view(flow: Flow, x: Axes, *_: Any, **__: Any) -> Axes:
    """Reshape to what the network made of it."""
    found = flow.reshape(x, flow.shape())
    flow.site(x, found)
    flow.delicate = flow.delicate or any(
        x.shape[d] not in found.shape for d in x.labelled()
    )  # fmt: skip
    return found


@rule("permute")
def permute(flow: Flow, x: Axes, dims: Sequence[int], *_: Any) -> Axes:
    """Reorder axes."""
    return Axes(flow.shape(), [x.layers[d] for d in dims])


@rule("transpose", "swapaxes")
def transpose(flow: Flow, x: Axes, one: int, other: int) -> Axes:
    """Exchange two axes."""
    layers = list(x.layers)
    layers[one], layers[other] = layers[other], layers[one]
    return Axes(flow.shape(), layers)


@rule("t")
def transposed(flow: Flow, x: Axes) -> Axes:
    """Exchange the axes of a matrix."""
    return Axes(flow.shape(), x.layers[::-1])


@rule("unsqueeze")
def unsqueeze(flow: Flow, x: Axes, dim: int) -> Axes:
    """Insert an axis of size 1."""
    dim %= len(x.shape) + 1
    return Axes(flow.shape(), [*x.layers[:dim], [], *x.layers[dim:]])


@rule("squeeze")
def squeeze(flow: Flow, x: Axes, *_: Any) -> Axes:
    """Drop axes of size 1."""
    return flow.reshape(x, flow.shape())


@rule("expand")
def expand(flow: Flow, x: Axes, *_: Any, **__: Any) -> Axes:
    """Repeat axes of size 1; others pass."""
    shape = flow.shape()
    extra = len(shape) - len(x.shape)
    layers: list[Layers] = [[] for _ in range(extra)]
    layers += [own if x.shape[i] > 1 else [] for i, own in enumerate(x.layers)]
    found = Axes(shape, layers)
    flow.site(found)
    return found


@rule("repeat")
def repeat(flow: Flow, x: Axes, repeats: Sequence[int]) -> Axes:
    """Repeat whole axes."""
    shape = flow.shape()
    extra = len(shape) - len(x.shape)
    layers: list[Layers] = [[] for _ in range(extra)]
    for own, count in zip(x.layers, repeats[extra:], strict=True):
        layers.append([np.tile(layer, count) for layer in own])
    return Axes(shape, layers)


@rule("cat", "concat")
def cat(flow: Flow, parts: Sequence[Axes], dim: int = 0) -> Axes:
    """Put axes one behind the other; the other axes are united."""
    shape = flow.shape()
    parts = [part for part in parts if len(part.shape) == len(shape)]
    dim %= len(shape)
    found = Axes(shape)
    for d in range(len(shape)):
        own = [part.layers[d] for part in parts]
        if d == dim:
            found.layers[d] = joined(own, [part.shape[d] for part in parts])
        elif shape[d] > 1 and any(own):
            found.layers[d] = _united(flow, own)
    return found


@rule("stack")
def stack(flow: Flow, parts: Sequence[Axes], dim: int = 0) -> Axes:
    """Unite all axes under a new one."""
    shape = flow.shape()
    own = [_united(flow, [part.layers[d] for part in parts]) for d in range(len(shape) - 1)]
    dim %= len(shape)
    return Axes(shape, [*own[:dim], [], *own[dim:]])


def _united(flow: Flow, own: Sequence[Layers]) -> Layers:
    first = next((layers for layers in own if layers), [])
    for layers in own:
        if layers is not first:
            flow.equal(first, layers)
    return first


def _tied(flow: Flow, x: Axes, dim: int, size: int) -> None:
    """Let equal parts of an axis lose the same channels, so that they stay equal."""
    if x.layers[dim] and 1 < size < x.shape[dim] and x.shape[dim] % size == 0:
        line = Axes((x.shape[dim],), [x.layers[dim]])
        grid = flow.reshape(line, (x.shape[dim] // size, size), ("tied", dim))
        flow.freeze(grid, [0], "splits it into parts")
        flow.delicate = True


@rule("split", "split_with_sizes", "chunk")
def split(flow: Flow, x: Axes, sizes: Any, dim: int = 0) -> list[Axes]:
    """Cut an axis; equal parts lose the same channels."""
    shapes = [flow.shape(i) for i in range(len(flow.call.results))]
    dim %= len(x.shape)
    lengths = tuple(shape[dim] for shape in shapes)
    if len(set(lengths)) == 1:
        _tied(flow, x, dim, lengths[0])
    start, found = 0, []
    for i, shape in enumerate(shapes):
        part = _cut(x, shape, dim, slice(start, start + shape[dim]))
        start += shape[dim]
        if part.layers[dim]:
            line = Axes((shape[dim],), [part.layers[dim]])
            flow.site(line, parts=(lengths, i))
        found.append(part)
    if x.layers[dim]:  # a part may be given as the whole less the others
        flow.site(Axes((x.shape[dim],), [x.layers[dim]]))
        flow.delicate = True
    return found


def _cut(x: Axes, shape: tuple[int, ...], dim: int, piece: slice) -> Axes:
    layers = list(x.layers)
    layers[dim] = [layer[piece] for layer in layers[dim]]
    return Axes(shape, layers)


@rule("slice", "narrow")
def cut(
    flow: Flow, x: Axes, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Axes:  # fmt: skip
    """Cut a piece out of an axis; pieces that divide it lose the same channels."""
    dim %= len(x.shape)
    first = slice(start, end, step).indices(x.shape[dim])[0]
    size = flow.shape()[dim]
    if step == 1 and size and first % size == 0:
        _tied(flow, x, dim, size)
    found = _cut(x, flow.shape(), dim, slice(start, end, step))
    if x.layers[dim] and size < x.shape[dim]:
        flow.site(found, Axes((x.shape[dim],), [x.layers[dim]]))
        flow.delicate = True
    return found


@rule("select", "unbind")
def select(flow: Flow, x: Axes, dim: int = 0, *_: Any) -> list[Axes]:
    """Take single entries of an axis, which has to stay as it is."""
    dim %= len(x.shape)
    flow.freeze(x, [dim], "takes single entries of it")
    layers = [*x.layers[:dim], *x.layers[dim + 1 :]]
    return [Axes(flow.shape(i), list(layers)) for i in range(len(flow.call.results))]


@rule("index")
def index(flow: Flow, x: Axes, indices: Sequence[Axes | None]) -> Axes:
    """Look entries up on some axes, which have to stay; the others pass."""
    used = [d for d, own in enumerate(indices) if own is not None]
    flow.freeze(x, used, "looks its entries up")
    for own in indices:
        if own is not None:
            flow.freeze(own, range(len(own.shape)), "looks entries up by it")
    if not used or used[-1] - used[0] + 1 != len(used):
        raise Unfollowed
    new = len(flow.shape()) - (len(x.shape) - len(used))
    layers = [*x.layers[: used[0]], *([] for _ in range(new)), *x.layers[used[-1] + 1 :]]
    return Axes(flow.shape(), layers)


@rule("index_select", "gather", "take_along_dim")
def index_select(flow: Flow, x: Axes, dim: int, which: Axes, *_: Any, **__: Any) -> Axes:
    """Look entries up on one axis."""
    flow.freeze(x, range(len(x.shape)) if flow.call.name == "gather" else [dim], "looks them up")
    layers = [list(own) for own in x.layers]
    layers[dim] = []
    return Axes(flow.shape(), layers if flow.call.name != "gather" else [])


@rule("embedding")
def embedding(flow: Flow, table: Axes, tokens: Axes, *_: Any, **__: Any) -> Axes:
    """Look rows of a table up."""
    flow.freeze(table, [0], "looks its rows up")
    return Axes(flow.shape(), [*([] for _ in tokens.shape), table.layers[1]])


@rule("flip")
def flip(flow: Flow, x: Axes, dims: Sequence[int]) -> Axes:
    """Reverse axes."""
    layers = list(x.layers)
    for d in dims:
        layers[d] = [layer[::-1].copy() for layer in layers[d]]
    return Axes(flow.shape(), layers)


@rule("roll")
def roll(flow: Flow, x: Axes, shifts: Any, dims: Sequence[int] = ()) -> Axes:
    """Move entries along axes by a number that does not follow their size."""
    flow.freeze(x, dims or range(len(x.shape)), "rolls it")
    return x


@rule("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "reflection_pad1d")
def pad(flow: Flow, x: Axes, padding: Sequence[int], *_: Any) -> Axes:
    """Add entries that no layer makes at the ends of the last axes."""
    shape, layers = flow.shape(), list(x.layers)
    for n in range(len(padding) // 2):
        d, before, after = len(shape) - 1 - n, padding[2 * n], padding[2 * n + 1]
        if not layers[d] or not (before or after):
            continue
        if before < 0 or after < 0:
            flow.freeze(x, [d], "crops it")
            layers[d] = []
        else:
            layers[d] = joined([[], layers[d], []], [before, x.shape[d], after])
            flow.delicate = True
    return Axes(shape, layers)


@rule("as_strided")
def as_strided(flow: Flow, x: Axes, size: Sequence[int], *_: Any) -> Axes:
    """Keep the order of entries, as pooling in channels-last order does; nothing else."""
    if tuple(size) != x.shape:
        raise Unfollowed
    return x


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(flow: Flow, x: Axes, groups: int) -> Axes:
    """Split the channels, exchange the two axes, and merge them again."""
    line = Axes((x.shape[1],), [x.layers[1]])
    grid = flow.reshape(line, (groups, x.shape[1] // groups))
    flow.freeze(grid, [0], "shuffles in groups, which stay")
    mixed = merged(grid.layers[::-1], grid.shape[::-1])
    flow.delicate = True
    return Axes(x.shape, [x.layers[0], mixed, *x.layers[2:]])


@rule("pixel_shuffle")
def pixel_shuffle(flow: Flow, x: Axes, factor: int) -> Axes:
    """Turn channels into pixels: ``(N, C r^2, H, W)`` to ``(N, C, H r, W r)``."""
    n, channels, height, width = x.shape
    grid = flow.reshape(x, (n, channels // factor**2, factor, factor, height, width))
    flow.freeze(grid, [2, 3, 4, 5], "turns channels into pixels")
    flow.delicate = True
    return Axes(flow.shape(), [grid.layers[0], grid.layers[1], [], []])


@rule("pixel_unshuffle")
def pixel_unshuffle(flow: Flow, x: Axes, factor: int) -> Axes:
    """Turn pixels into channels: ``(N, C, H r, W r)`` to ``(N, C r^2, H, W)``."""
    flow.freeze(x, [2, 3], "turns pixels into channels")
    own = [np.repeat(layer, factor**2) for layer in x.layers[1]]
    return Axes(flow.shape(), [x.layers[0], own, [], []])


@rule("im2col")
def im2col(flow: Flow, x: Axes, kernel: Sequence[int], *_: Any) -> Axes:
    """Put windows into channels: ``(N, C, H, W)`` to ``(N, C k, L)``."""
    flow.freeze(x, range(2, len(x.shape)), "moves windows over it")
    own = [np.repeat(layer, prod(kernel)) for layer in x.layers[1]]
    return Axes(flow.shape(), [x.layers[0], own, []])


@rule("col2im")
def col2im(flow: Flow, x: Axes, size: Any, kernel: Sequence[int], *_: Any) -> Axes:
    """Add windows up: ``(N, C k, L)`` to ``(N, C, H, W)``."""
    area = prod(kernel)
    flow.freeze(x, [2], "adds windows up")
    grid = flow.reshape(x, (x.shape[0], x.shape[1] // area, area, x.shape[2]))
    flow.freeze(grid, [2], "adds windows up")
    return Axes(flow.shape(), [grid.layers[0], grid.layers[1], [], []])


@rule("unfold")
def unfold(flow: Flow, x: Axes, dim: int, size: int, step: int) -> Axes:
    """Put windows of one axis into a new last one."""
    flow.freeze(x, [dim], "moves windows over it")
    layers = [list(own) for own in x.layers]
    layers[dim] = []
    return Axes(flow.shape(), [*layers, []])
