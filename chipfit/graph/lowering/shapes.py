# SPDX-License-Identifier: Apache-2.0
"""Calls that move data: concatenation, slices, padding, permutations and reshapes."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.record import Declined, Recorder, lowers


@lowers("cat", "concat", "concatenate")
def _cat(g: Recorder, out: torch.Tensor, tensors: Any, dim: int = 0, **_: Any) -> None:
    if len(tensors) == 1:
        g.alias(out, tensors[0])
        return
    g.emit("concat", list(tensors), out, axis=dim % out.dim())


@lowers("stack")
def _stack(g: Recorder, out: torch.Tensor, tensors: Any, dim: int = 0) -> None:
    parts = []
    for tensor in tensors:
        part = tensor.unsqueeze(dim)
        if g.is_activation(tensor):
            g.emit("reshape", [tensor], part)
        parts.append(part)
    _cat(g, out, parts, dim % out.dim())


def _slice(
    g: Recorder, out: torch.Tensor, source: torch.Tensor, axis: int, start: int, end: int,
    step: int = 1,
) -> None:  # fmt: skip
    if (start, end, step) == (0, source.shape[axis], 1):
        g.alias(out, source)
        return
    g.emit("slice", [source], out, axis=axis, start=start, end=end, step=step)


@lowers("chunk", "split", "tensor_split", "split_with_sizes")
def _split(
    g: Recorder, out: Any, input: torch.Tensor, sizes: Any = None, dim: int = 0, **_: Any
) -> None:
    axis, start = dim % input.dim(), 0
    for part in out:
        _slice(g, part, input, axis, start, start + part.shape[axis])
        start += part.shape[axis]


@lowers("unbind")
def _unbind(g: Recorder, out: Any, input: torch.Tensor, dim: int = 0) -> None:
    axis = dim % input.dim()
    for i, part in enumerate(out):
        whole = part.unsqueeze(axis)
        _slice(g, whole, input, axis, i, i + 1)
        g.emit("reshape", [whole], part)


@lowers("narrow")
def _narrow(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: int, start: int, length: int
) -> None:
    _slice(g, out, input, dim % input.dim(), int(start), int(start) + int(length))


@lowers("select")
def _select(g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: int, index: int) -> None:
    _getitem(g, out, input, (slice(None),) * (dim % input.dim()) + (index,))


@lowers("getitem")
def _getitem(g: Recorder, out: torch.Tensor, input: torch.Tensor, index: Any) -> None:
    items = list(index) if isinstance(index, tuple) else [index]
    used = sum(item is not None and item is not Ellipsis for item in items)
    if Ellipsis in [i for i in items if not isinstance(i, torch.Tensor)]:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (input.dim() - used)
    if not all(item is None or isinstance(item, (int, slice)) for item in items):
        raise Declined("an index that is a tensor or a list")
    value, axis = input, 0
    for item in items:
        if item is None:
            continue
        size = input.shape[axis]
        if isinstance(item, int):
            start, end, step = item % size, item % size + 1, 1
        else:
            start, end, step = item.indices(size)
        if (start, end, step) != (0, size, 1):
            part = value[(slice(None),) * axis + (slice(start, end, step),)]
            _slice(g, part, value, axis, start, end, step)
            value = part
        axis += 1
    if value.shape == out.shape:
        g.alias(out, value)
    else:
        _reshape(g, out, value)


@lowers("pad")
def _pad(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, pad: Any, mode: str = "constant",
    value: Any = None,
) -> None:  # fmt: skip
    if mode != "constant":
        raise Declined(f"mode {mode}")
    sides = [(0, 0)] * input.dim()
    for i in range(len(pad) // 2):
        sides[-1 - i] = (int(pad[2 * i]), int(pad[2 * i + 1]))
    if any(side < 0 for both in sides for side in both) or sides[0] != (0, 0):
        raise Declined("it crops, or pads the batch")
    if not any(side for both in sides for side in both):
        g.alias(out, input)
        return
    g.emit("pad", [input], out, padding=tuple(sides), value=float(value or 0.0))


def _permuted(g: Recorder, out: torch.Tensor, input: torch.Tensor, dims: Any) -> None:
    order = tuple(d % input.dim() for d in dims)
    moving = [d for d in order if input.shape[d] != 1]
    if order == tuple(range(input.dim())):
        g.alias(out, input)
    elif moving == sorted(moving):
        g.emit("reshape", [input], out)  # only axes of size one change places
    else:
        g.emit("permute", [input], out, dims=order)


@lowers("permute")
def _permute(g: Recorder, out: torch.Tensor, input: torch.Tensor, *dims: Any, **kw: Any) -> None:
    given = kw.get("dims", dims[0] if len(dims) == 1 else dims)
    _permuted(g, out, input, given)


@lowers("transpose", "swapaxes", "swapdims")
def _transpose(g: Recorder, out: torch.Tensor, input: torch.Tensor, a: int, b: int) -> None:
    dims = list(range(input.dim()))
    dims[a], dims[b] = dims[b], dims[a]
    _permuted(g, out, input, dims)


@lowers("get_mT")
def _matrix_transpose(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any) -> None:
    _transpose(g, out, input, -1, -2)


@lowers("movedim", "moveaxis")
def _movedim(g: Recorder, out: torch.Tensor, input: torch.Tensor, *args: Any, **kw: Any) -> None:
    sizes = torch.empty(tuple(range(2, input.dim() + 2)), device="meta")
    _permuted(g, out, input, [size - 2 for size in sizes.movedim(*args, **kw).shape])


@lowers("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as",
        "reshape_as", "ravel")  # fmt: skip
def _reshape(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any, **__: Any) -> None:
    if out.dtype != input.dtype:
        raise Declined("it reinterprets the data")
    if out.shape == input.shape:
        g.alias(out, input)
        return
    g.emit("reshape", [input], out)


@lowers("expand", "expand_as", "broadcast_to")
def _expand(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any, **__: Any) -> None:
    if out.shape == input.shape:
        g.alias(out, input)
    else:
        g.expand(out, input)


@lowers("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(g: Recorder, out: torch.Tensor, input: torch.Tensor, groups: int) -> None:
    n, c, h, w = input.shape
    split = input.reshape(n, groups, c // groups, h, w)
    g.emit("reshape", [input], split)
    swapped = split.transpose(1, 2)
    g.emit("permute", [split], swapped, dims=(0, 2, 1, 3, 4))
    g.emit("reshape", [swapped], out)
