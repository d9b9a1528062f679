# SPDX-License-Identifier: Apache-2.0
"""Calls that move data: concatenation, slices, padding, permutations and reshapes."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.record import Recorder


@lowers("cat", "concat", "concatenate")
def join(g: Recorder, out: torch.Tensor, tensors: Any, dim: int = 0, **_: Any) -> None:
    """Record a concatenation; parts that hold nothing are left out."""
    axis = dim % out.dim()
    parts = [x for x in tensors if x.dim() == out.dim() and x.shape[axis]]
    if len(parts) == 1:
        g.alias(out, parts[0])
        return
    g.emit("concat", parts, out, axis=axis)


@lowers("stack")
def _stack(g: Recorder, out: torch.Tensor, tensors: Any, dim: int = 0) -> None:
    parts = []
    for tensor in tensors:
        part = tensor.unsqueeze(dim)
        if g.is_activation(tensor):
            g.emit("reshape", [tensor], part)
        parts.append(part)
    join(g, out, parts, dim % out.dim())


def cut_out(
    g: Recorder, out: torch.Tensor, source: torch.Tensor, axis: int, start: int, end: int,
    step: int = 1,
) -> None:  # fmt: skip
    """Record a slice along one axis, or nothing where it takes all."""
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
        cut_out(g, part, input, axis, start, start + part.shape[axis])
        start += part.shape[axis]


@lowers("unbind")
def _unbind(g: Recorder, out: Any, input: torch.Tensor, dim: int = 0) -> None:
    axis = dim % input.dim()
    for i, part in enumerate(out):
        whole = part.unsqueeze(axis)
        cut_out(g, whole, input, axis, i, i + 1)
        g.emit("reshape", [whole], part)


@lowers("narrow")
def _narrow(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: int, start: int, length: int
) -> None:
    cut_out(g, out, input, dim % input.dim(), int(start), int(start) + int(length))


def permuted(g: Recorder, out: torch.Tensor, input: torch.Tensor, dims: Any) -> None:
    """Record a permutation, as a reshape where only axes of size one change places."""
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
    permuted(g, out, input, given)


@lowers("transpose", "swapaxes", "swapdims")
def _transpose(g: Recorder, out: torch.Tensor, input: torch.Tensor, a: int, b: int) -> None:
    dims = list(range(input.dim()))
    dims[a], dims[b] = dims[b], dims[a]
    permuted(g, out, input, dims)


@lowers("get_T", "t")
def _reversed_axes(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any) -> None:
    permuted(g, out, input, tuple(reversed(range(input.dim()))))


@lowers("get_mT")
def _matrix_transpose(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any) -> None:
    _transpose(g, out, input, -1, -2)


@lowers("movedim", "moveaxis")
def _movedim(g: Recorder, out: torch.Tensor, input: torch.Tensor, *args: Any, **kw: Any) -> None:
    sizes = torch.empty(tuple(range(2, input.dim() + 2)), device="meta")
    permuted(g, out, input, [size - 2 for size in sizes.movedim(*args, **kw).shape])


@lowers("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as",
        "reshape_as", "ravel", "atleast_1d")  # fmt: skip
def reshaped(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any, **__: Any) -> None:
    """Record a reshape, or nothing where the shape stays."""
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


@lowers("repeat", "tile")
def _repeat(g: Recorder, out: torch.Tensor, input: torch.Tensor, *sizes: Any, **kw: Any) -> None:
    given = kw.get("repeats", kw.get("dims", sizes))
    flat = [n for item in given for n in (item if isinstance(item, (list, tuple)) else (item,))]
    value, rank = input, out.dim()
    if rank > input.dim():
        value = input.reshape((1,) * (rank - input.dim()) + tuple(input.shape))
        g.emit("reshape", [input], value)
    times = [1] * (rank - len(flat)) + [int(n) for n in flat]
    for axis, count in enumerate(times):
        if count > 1:
            longer = torch.cat([value] * count, axis)
            g.emit("concat", [value] * count, longer, axis=axis)
            value = longer
    g.alias(out, value)


@lowers("repeat_interleave")
def _repeat_interleave(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, repeats: Any, dim: Any = None, **_: Any
) -> None:
    if not isinstance(repeats, int) or dim is None:
        raise Declined("counts that are a tensor, or no axis")
    axis = dim % input.dim() + 1
    small = input.unsqueeze(axis)
    g.emit("reshape", [input], small)
    longer = torch.cat([small] * repeats, axis)
    join(g, longer, [small] * repeats, axis)
    g.emit("reshape", [longer], out)


@lowers("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(g: Recorder, out: torch.Tensor, input: torch.Tensor, groups: int) -> None:
    n, c, h, w = input.shape
    split = input.reshape(n, groups, c // groups, h, w)
    g.emit("reshape", [input], split)
    swapped = split.transpose(1, 2)
    g.emit("permute", [split], swapped, dims=(0, 2, 1, 3, 4))
    g.emit("reshape", [swapped], out)
