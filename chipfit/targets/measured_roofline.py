# SPDX-License-Identifier: Apache-2.0
"""The peaks of a measured device, found by running the two extremes of arithmetic intensity."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from chipfit.graph.op import make_op
from chipfit.graph.workload import Node, Workload
from chipfit.targets.footprint import ELEMENT_BYTES
from chipfit.targets.roofline import Roofline
from chipfit.targets.timing import absolute_ms

if TYPE_CHECKING:
    from chipfit.targets.measured import MeasuredTarget

#: Rows and columns of the matrix that is streamed: 128 MiB in float32, more than caches hold.
STREAMED = (4096, 8192)


def measure_roofline(target: MeasuredTarget) -> Roofline:
    """Return the highest arithmetic and memory speeds that the runtime reaches.

    Arithmetic is the quickest of a pointwise convolution, a 3 x 3 convolution and a matrix product,
    all of them large; where a runtime replaces a convolution by one of fewer multiplications
    (Winograd), its MACs are still those of the definition. Memory traffic is that of a product of a
    vector with a matrix of 128 MiB, in float whatever the precision: memory does not care.
    """
    protocol = replace(target.protocol, min_rounds=5, max_rounds=6, sessions=1, warm_up=1)
    side = target.roofline_side
    speeds = []
    for workload in (_conv(side, 1), _conv(side // 2, 3), _linear(16 * side, 4 * side, 4 * side)):
        with target.settings():
            make = target.makers([workload])[0]
            speeds.append(workload.macs * 1e3 / absolute_ms(make, protocol, target.sampler))
    rows, columns = STREAMED
    streamed = _linear(1, columns, rows)
    reader = target.in_precision("float32") if target.precision == "int8" else target
    with reader.settings():
        milliseconds = absolute_ms(reader.makers([streamed])[0], protocol, reader.sampler)
    size = rows * columns * ELEMENT_BYTES[reader.precision]
    return Roofline(max(speeds), size * 1e3 / milliseconds, target.memory, "measured")


@lru_cache(maxsize=8)
def _conv(channels: int, kernel: int) -> Workload:
    side, pad = 32, kernel // 2
    shape = (1, channels, side, side)
    op = make_op(
        "conv2d", [shape], shape, kernel=(kernel, kernel), stride=(1, 1), dilation=(1, 1),
        groups=1, bias=True, padding=(pad,) * 4,
    )  # fmt: skip
    return Workload((Node("conv", op, ("x",), "y"),), ("x",), ("y",), {"x": shape, "y": shape})


@lru_cache(maxsize=8)
def _linear(batch: int, width: int, out: int) -> Workload:
    shapes = {"x": (1, batch, width), "y": (1, batch, out)}
    op = make_op("linear", [shapes["x"]], shapes["y"], bias=False)
    return Workload((Node("linear", op, ("x",), "y"),), ("x",), ("y",), shapes)
