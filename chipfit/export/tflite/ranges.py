# SPDX-License-Identifier: Apache-2.0
"""Ranges of tensors, and which tensors must share one quantisation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from chipfit.errors import BadInput, UnsupportedOp
from chipfit.export.tflite.ir import Quant, quant_of_range
from chipfit.graph.op import Op
from chipfit.graph.workload import Node, Workload

#: Lowest and highest value by tensor name; intermediate values are called ``<output>:<role>``.
Ranges = Mapping[str, tuple[float, float]]

#: Quantisations that TFLite prescribes.
UNIT = Quant((1 / 256,), -128)
SIGNED_UNIT = Quant((1 / 128,), 0)

#: Outside of these inputs an activation is flat within half a step, so clipping loses nothing.
USEFUL = {
    "hardswish": (-3.0, math.inf), "hardsigmoid": (-3.0, 3.0), "sigmoid": (-8.0, 8.0),
    "tanh": (-4.0, 4.0), "silu": (-10.0, math.inf), "gelu": (-4.0, math.inf),
    "elu": (-6.0, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0),
    "mish": (-10.0, math.inf),
}  # fmt: skip

_FUSES = ("conv2d", "linear", "batch_norm", "add", "sub", "mul", "div", "max_pool2d", "avg_pool2d")
_SHARES = ("max_pool2d", "avg_pool2d", "reshape", "slice", "pad", "permute", "amax", "resize",
           "pixel_shuffle", "pixel_unshuffle")  # fmt: skip


def fuses(op: Op) -> bool:
    """Whether the last TFLite operator of ``op`` applies the activation itself."""
    if op.activation in ("none", "relu", "relu6"):
        return op.kind in _FUSES or (op.kind in ("layer_norm", "group_norm") and op["affine"])
    # Scaled weights and the saturation of the output make a hard sigmoid.
    return op.activation == "hardsigmoid" and op.kind in ("conv2d", "linear")


def core_name(node: Node) -> str:
    """Return the name of what a node computes before an activation of its own operator."""
    separate = node.op.activation != "none" and not fuses(node.op)
    return f"{node.output}:pre" if separate else node.output


def needs_correction(op: Op) -> bool:
    """Whether an average pool divides border windows by fewer elements, unlike TFLite."""
    if op.kind != "avg_pool2d" or op["count_include_pad"]:
        return False
    return any(used_padding(op)) and not is_same(op)


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return ``(before, after)`` that TFLite's SAME means along one axis."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def used_padding(op: Op) -> tuple[int, int, int, int]:
    """Return ``(top, bottom, left, right)`` without far rows and columns that no window reaches."""
    top, bottom, left, right = op["padding"]
    sides = []
    for axis, before, after in ((0, top, bottom), (1, left, right)):
        size, out = op.inputs[0][2 + axis], op.output[2 + axis]
        span = (op["kernel"][axis] - 1) * op.get("dilation", (1, 1))[axis] + 1
        reached = (out - 1) * op["stride"][axis] + span - size - before
        sides += [before, max(min(after, reached), 0)]
    return sides[0], sides[1], sides[2], sides[3]


def is_same(op: Op) -> bool:
    """Whether the padding of a window operator is what TFLite's SAME would choose."""
    top, bottom, left, right = used_padding(op)
    for axis, sides in ((0, (top, bottom)), (1, (left, right))):
        size, stride = op.inputs[0][2 + axis], op["stride"][axis]
        dilation = op.get("dilation", (1, 1))[axis]
        if op.output[2 + axis] != -(-size // stride):
            return False
        if same_padding(size, op["kernel"][axis], stride, dilation) != sides:
            return False
    return True


class Quantisation:
    """The int8 quantisation of every activation of a workload.

    Operators that only move or select values keep the quantisation of their input; the inputs of
    a concatenation are given one range; softmax, sigmoid and tanh have prescribed ones.

    Args:
        workload: The operators.
        ranges: Calibrated or synthetic ranges.
    """

    def __init__(self, workload: Workload, ranges: Ranges) -> None:
        self._ranges = ranges
        self._parent: dict[str, str] = {}
        self._fixed: dict[str, Quant] = {}
        self._clip: dict[str, tuple[float, float]] = {}
        self._constants = workload.constants
        readers: dict[str, list[Node]] = {}
        for node in workload.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        for node in workload.nodes:
            self._add(node, readers, workload.outputs)
        self._members: dict[str, list[str]] = {}
        for name in self._parent:
            self._members.setdefault(self._root(name), []).append(name)

    def _root(self, name: str) -> str:
        while self._parent.setdefault(name, name) != name:
            name = self._parent[name]
        return name

    def _unite(self, name: str, other: str) -> None:
        self._parent[self._root(name)] = self._root(other)

    def _add(self, node: Node, readers: Mapping[str, list[Node]], outputs: tuple[str, ...]) -> None:
        op, core = node.op, core_name(node)
        live = [name for name in node.inputs if name not in self._constants]
        if op.kind in _SHARES and live and not needs_correction(op):
            self._unite(core, live[0])
        elif op.kind == "concat":
            for name in live:
                if self._root(name) not in self._fixed:
                    self._unite(core, name)
        elif op.kind == "softmax":
            self._fixed[self._root(core)] = UNIT
        if op.kind == "activation":
            source = node.inputs[0]
            if readers[source] == [node] and source not in outputs:
                self._clip.setdefault(source, USEFUL.get(op.activation, (-math.inf, math.inf)))
        elif core != node.output:
            self._clip[core] = USEFUL.get(op.activation, (-math.inf, math.inf))
        self._fix_activation(node, core)

    def _fix_activation(self, node: Node, core: str) -> None:
        op = node.op
        if op.activation == "hardsigmoid":
            self._fixed[self._root(node.output)] = quant_of_range(0.0, 1.0)
        elif op.kind == "activation" or core != node.output:
            if op.activation == "sigmoid":
                self._fixed[self._root(node.output)] = UNIT
            elif op.activation == "tanh":
                self._fixed[self._root(node.output)] = SIGNED_UNIT
            elif op.activation == "relu6":
                high = min(self.range(node.output)[1], 6.0)
                self._fixed[self._root(node.output)] = quant_of_range(0.0, high)

    def range(self, name: str) -> tuple[float, float]:
        """Return the calibrated range of one tensor.

        Raises:
            BadInput: There is none, or it is not finite.
        """
        if name not in self._ranges:
            raise BadInput(
                f"there is no range for tensor {name!r}",
                "calibrate the same program that is exported",
            )
        low, high = self._ranges[name]
        if not (math.isfinite(low) and math.isfinite(high)):
            raise BadInput(f"the range of tensor {name!r} is [{low}, {high}]")
        return low, high

    def of(self, name: str) -> Quant:
        """Return the quantisation of an activation tensor."""
        root = self._root(name)
        if root in self._fixed:
            return self._fixed[root]
        members = self._members.get(root, [name])
        spans = [self.range(member) for member in members]
        low, high = min(s[0] for s in spans), max(s[1] for s in spans)
        if len(members) == 1 and name in self._clip:
            low, high = max(low, self._clip[name][0]), min(high, self._clip[name][1])
        return quant_of_range(low, high)

    def require_divisor(self, node: Node, name: str) -> None:
        """Raise ``UnsupportedOp`` where a divisor may be zero."""
        low, high = self.range(name)
        if low <= 0.0 <= high:
            raise UnsupportedOp(
                f"{node.name}: div by a tensor that spans [{low:.3g}, {high:.3g}], and int8 "
                "division needs one that keeps its sign",
                "divide by a constant, or by a positive tensor",
            )


def synthetic_ranges(workload: Workload) -> dict[str, tuple[float, float]]:
    """Return made-up but plausible ranges, for files that are compiled for their cost only.

    Every tensor gets a slightly different range, as in a calibrated network, so that compilers
    cannot share look-up tables or rescalings that a real file could not share.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for index, name in enumerate((*workload.inputs, *(n.output for n in workload.nodes))):
        high = 4.0 + 0.013 * index
        ranges[name] = ranges[f"{name}:pre"] = (-high, high)
        for role, (low, top) in {
            "mean": (-0.5, 0.5), "mean_hw": (-1.0, 1.0), "centred": (-1.0, 1.0),
            "square": (0.0, 4.0), "var_hw": (0.0, 1.5), "var": (0.0, 1.0), "eps": (0.0, 1.0),
            "rstd": (0.0, 0.5), "unit": (-1.0, 1.0), "inner": (-0.5, 0.5),
        }.items():  # fmt: skip
            ranges[f"{name}:{role}"] = (low * high, top * high)
    low_of = {"relu": 0.0, "relu6": 0.0, "hardswish": -0.375, "silu": -0.2785, "gelu": -0.17,
              "mish": -0.309, "elu": -1.0, "softplus": 0.0}  # fmt: skip
    for node in workload.nodes:
        high = ranges[node.output][1]
        if node.op.activation in low_of:
            top = min(high, 6.0) if node.op.activation == "relu6" else high
            ranges[node.output] = (low_of[node.op.activation], top)
        if node.op.kind == "div":
            ranges[node.inputs[1]] = (0.5, 4.0)
        if node.op.kind == "unary" and node.op["function"] in ("rsqrt", "log"):
            ranges[node.inputs[0]] = (0.0, ranges[node.output][1])  # of positive numbers only
        if node.op.kind == "clamp":
            low, high = ranges[node.output]
            ends = (node.op["low"], node.op["high"])
            ranges[node.output] = (low if ends[0] is None else ends[0],
                                   high if ends[1] is None else ends[1])  # fmt: skip
    return ranges
