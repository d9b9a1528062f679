# SPDX-License-Identifier: Apache-2.0
"""Windows that overlap, and what is put around images: unfold, fold and padding."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.lowering.indexing import gathered
from chipfit.graph.lowering.layers import pair
from chipfit.graph.lowering.shapes import cut_out, permuted, reshaped
from chipfit.graph.record import Recorder


@lowers("unfold")
def _unfold(g: Recorder, out: torch.Tensor, input: torch.Tensor, *args: Any, **kw: Any) -> None:
    if out.dim() == input.dim() + 1:
        _windows(g, out, input, *args, **kw)
    else:
        _im2col(g, out, input, *args, **kw)


def _windows(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dimension: int, size: int, step: int
) -> None:
    axis = dimension % input.dim()
    count = out.shape[axis]
    index = torch.tensor([i * step + j for i in range(count) for j in range(size)])
    value = input
    if size == step:
        value = input.narrow(axis, 0, count * size)
        cut_out(g, value, input, axis, 0, count * size)
    else:
        value = gathered(g, input, axis, index)
    shape = value.shape
    split = value.reshape(*shape[:axis], count, size, *shape[axis + 1 :])
    reshaped(g, split, value)
    order = [i for i in range(split.dim()) if i != axis + 1] + [axis + 1]
    permuted(g, out, split, order)


@lowers("im2col")
def _im2col(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, kernel_size: Any, dilation: Any = 1,
    padding: Any = 0, stride: Any = 1,
) -> None:  # fmt: skip
    if input.dim() != 4:
        raise Declined("an image without a batch axis")
    g.emit("unfold", [input], out, kernel=pair(kernel_size), dilation=pair(dilation),
           padding=pair(padding), stride=pair(stride))  # fmt: skip


@lowers("fold", "col2im")
def _fold(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, output_size: Any, kernel_size: Any,
    dilation: Any = 1, padding: Any = 0, stride: Any = 1,
) -> None:  # fmt: skip
    if input.dim() != 3:
        raise Declined("columns without a batch axis")
    g.emit("fold", [input], out, kernel=pair(kernel_size), dilation=pair(dilation),
           padding=pair(padding), stride=pair(stride))  # fmt: skip


@lowers("pad")
def _pad(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, pad: Any, mode: str = "constant",
    value: Any = None,
) -> None:  # fmt: skip
    sides = [(0, 0)] * input.dim()
    for i in range(len(pad) // 2):
        sides[-1 - i] = (int(pad[2 * i]), int(pad[2 * i + 1]))
    if mode != "constant":
        g.alias(out, _mirrored(g, input, sides, mode))
        return
    source = input
    for axis, (before, after) in enumerate(sides):
        if before < 0 or after < 0:  # negative padding crops
            start, end = max(-before, 0), source.shape[axis] - max(-after, 0)
            part = source.narrow(axis, start, end - start)
            cut_out(g, part, source, axis, start, end)
            source = part
    sides = [(max(before, 0), max(after, 0)) for before, after in sides]
    if not any(side for both in sides for side in both):
        g.alias(out, source)
        return
    g.emit("pad", [source], out, padding=tuple(sides), value=float(value or 0.0))


def _mirrored(
    g: Recorder, input: torch.Tensor, sides: list[tuple[int, int]], mode: str
) -> torch.Tensor:
    """Pad by repeating what is there: every padded axis is gathered from the old positions."""
    value = input
    for axis, (before, after) in enumerate(sides):
        if (before, after) == (0, 0):
            continue
        size = value.shape[axis]
        places = torch.arange(-before, size + after)
        if mode == "replicate":
            places = places.clamp(0, size - 1)
        elif mode == "circular":
            places = places % size
        elif mode == "reflect":
            places = (size - 1) - ((size - 1) - places.abs()).abs()
        else:
            raise Declined(f"mode {mode}")
        value = gathered(g, value, axis, places)
    return value
