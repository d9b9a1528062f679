# SPDX-License-Identifier: Apache-2.0
"""Indices: reading and writing parts of tensors, rolls and flips."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.lowering.shapes import cut_out, join, reshaped
from chipfit.graph.record import Recorder


def _full(index: Any, rank: int) -> list[Any]:
    """Return one item per axis (and ``None`` for new ones), the ellipsis written out."""
    items = list(index) if isinstance(index, tuple) else [index]
    used = sum(
        item.dim() if isinstance(item, torch.Tensor) and item.dtype == torch.bool
        else item is not None and item is not Ellipsis
        for item in items
    )  # fmt: skip
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    rest = [slice(None)] * (rank - used)
    if dots:
        items[dots[0] : dots[0] + 1] = rest
    else:
        items += rest
    return items


def _positions(item: Any, g: Recorder) -> list[int] | torch.Tensor:
    """Return a constant advanced index as a tensor of integers."""
    tensor = torch.as_tensor(item)
    if g.is_activation(item):
        raise Declined("an index that depends on the input")
    if tensor.dtype == torch.bool:
        if tensor.dim() != 1:
            raise Declined("a mask of several axes")
        return tensor.nonzero().flatten()
    return tensor


@lowers("select")
def _select(g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: int, index: int) -> None:
    _getitem(g, out, input, (slice(None),) * (dim % input.dim()) + (index,))


@lowers("getitem")
def _getitem(g: Recorder, out: torch.Tensor, input: torch.Tensor, index: Any) -> None:
    items = _full(index, input.dim())
    value, axis = input, 0
    advanced: list[tuple[int, Any]] = []
    for item in items:
        if item is None:
            continue
        if isinstance(item, (torch.Tensor, list, tuple)) and not (
            isinstance(item, torch.Tensor) and item.dim() == 0
        ):
            advanced.append((axis, item))
            axis += 1
            continue
        size = input.shape[axis]
        if isinstance(item, slice):
            start, end, step = item.indices(size)
        else:
            start, end, step = int(item) % size, int(item) % size + 1, 1
        if (start, end, step) != (0, size, 1):
            part = value[(slice(None),) * axis + (slice(start, end, step),)]
            cut_out(g, part, value, axis, start, end, step)
            value = part
        axis += 1
    if len(advanced) > 1:
        raise Declined("indices along several axes")
    for place, item in advanced:
        positions = _positions(item, g)
        value = gathered(g, value, place, torch.as_tensor(positions))
    if value.shape == out.shape:
        g.alias(out, value)
    else:
        reshaped(g, out, value)


def gathered(g: Recorder, value: torch.Tensor, axis: int, positions: torch.Tensor) -> torch.Tensor:
    """Return ``value`` with only constant ``positions`` of an axis, recording how."""
    size = value.shape[axis]
    index = [int(i) % size for i in positions.flatten().tolist()]
    result = value.index_select(axis, torch.tensor(index, device=value.device))
    step = index[1] - index[0] if len(index) > 1 else 1
    if step > 0 and index == list(range(index[0], index[-1] + 1, step)):
        cut_out(g, result, value, axis, index[0], index[-1] + 1, step)
    else:
        g.emit("gather", [value], result, axis=axis, index=tuple(index))
    return result


@lowers("index_select")
def _index_select(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: int, index: torch.Tensor
) -> None:
    if g.is_activation(index):
        raise Declined("an index that depends on the input")
    g.alias(out, gathered(g, input, dim % input.dim(), index))


@lowers("flip")
def _flip(g: Recorder, out: torch.Tensor, input: torch.Tensor, *dims: Any, **kw: Any) -> None:
    given = kw.get("dims", dims[0] if len(dims) == 1 else dims)
    value = input
    for dim in [given] if isinstance(given, int) else given:
        axis = dim % input.dim()
        turned = torch.arange(input.shape[axis] - 1, -1, -1)
        value = gathered(g, value, axis, turned)
    g.alias(out, value)


@lowers("roll")
def _roll(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, shifts: Any, dims: Any = None
) -> None:
    if dims is None or dims == ():
        flat = input.reshape(-1)
        g.emit("reshape", [input], flat)
        result = flat.roll(shifts)
        _roll(g, result, flat, shifts, 0)
        g.emit("reshape", [result], out)
        return
    value = input
    steps = [shifts] if isinstance(shifts, int) else list(shifts)
    for shift, dim in zip(steps, [dims] if isinstance(dims, int) else dims, strict=True):
        axis = dim % input.dim()
        size = value.shape[axis]
        if shift % size:
            cut = size - shift % size
            tail, head = value.narrow(axis, cut, size - cut), value.narrow(axis, 0, cut)
            cut_out(g, tail, value, axis, cut, size)
            cut_out(g, head, value, axis, 0, cut)
            rolled = torch.cat([tail, head], axis)
            join(g, rolled, [tail, head], axis)
            value = rolled
    g.alias(out, value)


@lowers("setitem")
def _setitem(g: Recorder, out: Any, target: torch.Tensor, index: Any, value: Any) -> None:
    spans = []
    items = _full(index, target.dim())
    if any(not isinstance(item, (int, slice)) for item in items):
        raise Declined("an index that is a tensor or a list")
    for item, size in zip(items, target.shape, strict=True):
        start, end, step = (
            item.indices(size) if isinstance(item, slice) else (item % size, item % size + 1, 1)
        )
        if step != 1:
            raise Declined("a step other than one")
        spans.append((start, end))
    old = g.before_write(target)
    shape = tuple(end - start for start, end in spans)
    kept = tuple(
        size for size, item in zip(shape, items, strict=True) if isinstance(item, slice)
    )  # fmt: skip
    part = _written(g, value, target, shape, kept)
    g.alias(target, _place(g, old, part, spans, 0))


def _written(
    g: Recorder, value: Any, target: torch.Tensor, shape: tuple[int, ...], kept: tuple[int, ...]
) -> torch.Tensor:
    """Return ``value`` in the shape of the part of ``target`` that it is written to."""
    if not g.is_activation(value):
        plain = torch.as_tensor(value, dtype=target.dtype, device=target.device)
        return plain.expand(kept).reshape(shape).clone()
    grown = value
    if tuple(value.shape) != kept:
        squeezed = value.reshape(value.shape[max(value.dim() - len(kept), 0) :])
        grown = squeezed.expand(kept)
        g.emit("add", [value, torch.zeros(kept)], grown)
    if kept == shape:
        return grown
    part = grown.reshape(shape)
    g.emit("reshape", [grown], part)
    return part


def _place(
    g: Recorder, old: torch.Tensor, part: torch.Tensor, spans: list[tuple[int, int]], axis: int
) -> torch.Tensor:
    """Return ``old`` with ``part`` at ``spans`` of the axes from ``axis`` on."""
    while axis < old.dim() and spans[axis] == (0, old.shape[axis]):
        axis += 1
    if axis == old.dim():
        return part
    start, end = spans[axis]

    def cut(first: int, last: int) -> torch.Tensor:
        piece = old.narrow(axis, first, last - first)
        if g.is_activation(old):
            cut_out(g, piece, old, axis, first, last)
        else:
            piece = piece.clone()
        return piece

    partly = any(spans[i] != (0, old.shape[i]) for i in range(axis + 1, old.dim()))
    middle = _place(g, cut(start, end), part, spans, axis + 1) if partly else part
    pieces = [cut(0, start)] if start else []
    pieces += [middle, *([cut(end, old.shape[axis])] if end < old.shape[axis] else [])]
    whole = torch.cat(pieces, axis)
    join(g, whole, pieces, axis)
    return whole
