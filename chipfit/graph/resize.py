# SPDX-License-Identifier: Apache-2.0
"""Predict the workload of a narrower network from the original's, without building the network.

A search asks for thousands of widths; tracing each would take minutes, this takes less than a
millisecond. Where a reshape or a slice hides where the channels went, :class:`Unresizable` is
raised and the caller slices and traces for real.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from chipfit.graph.op import Op, Shape, make_op
from chipfit.graph.workload import Node, Workload


class Unresizable(Exception):
    """The new shape of an operator does not follow from the widths alone."""


def resize(workload: Workload, widths: Mapping[str, int]) -> Workload:
    """Return ``workload`` with other output widths.

    Args:
        workload: The traced network.
        widths: New number of output channels by the dotted name of a module with a weight, and
            new length of the channel axis by the name of a constant tensor.

    Raises:
        Unresizable: An operator's new shape cannot be inferred.
    """
    shapes = {name: workload.shapes[name] for name in workload.inputs}
    for name in workload.constants:
        shapes[name] = _constant(workload.shapes[name], widths.get(name))
    nodes = []
    for node in workload.nodes:
        inputs = tuple(shapes[name] for name in node.inputs)
        width = widths.get(node.module) if node.module else None
        if inputs == node.op.inputs and width in (None, _channels(node.op)):
            nodes.append(node)
            shapes[node.output] = node.op.output
            continue
        op = _resized(node.op, inputs, width, node.name)
        shapes[node.output] = op.output
        nodes.append(Node(node.name, op, node.inputs, node.output, node.module, node.absorbed))
    for name in workload.outputs:
        if shapes[name] != workload.shapes[name]:
            raise Unresizable(f"{name} leaves the network")
    return Workload(tuple(nodes), workload.inputs, workload.outputs, shapes, workload.constants)


def _channels(op: Op) -> int | None:
    if op.kind == "conv2d":
        return op.output[1]
    return op.output[-1] if op.kind == "linear" else None


def _constant(shape: Shape, width: int | None) -> Shape:
    if width is None:
        return shape
    axes = [i for i, size in enumerate(shape) if size > 1]
    if len(axes) != 1:
        raise Unresizable("a constant with several axes")
    return tuple(width if i == axes[0] else size for i, size in enumerate(shape))


def _resized(op: Op, inputs: tuple[Shape, ...], width: int | None, name: str) -> Op:
    attrs = dict(op.attrs)
    first, old = inputs[0], op.inputs[0]
    if op.kind == "conv2d":
        if op.depthwise:
            attrs["groups"] = first[1]
            out = first[1] * (op.output[1] // old[1])
        else:
            out = width or op.output[1]
        if first[1] % attrs["groups"]:
            raise Unresizable(f"{name}: groups do not divide {first[1]} channels")
        output: Shape = (first[0], out, *op.output[2:])
    elif op.kind == "linear":
        output = (*first[:-1], width or op.output[-1])
    elif op.kind in ("add", "sub", "mul", "div", "maximum", "minimum"):
        output = _broadcast(inputs, name)
    elif op.kind == "matmul":
        output = (*first[:-1], inputs[1][-1])
        if first[-1] != inputs[1][-2]:
            raise Unresizable(f"{name}: inner sizes differ")
    elif op.kind in ("batch_norm", "activation", "softmax", "layer_norm", "group_norm", "unary",
                     "clamp", "cumsum"):  # fmt: skip
        output = first
        if op.kind == "group_norm" and first[1] % attrs["groups"]:
            raise Unresizable(f"{name}: groups do not divide {first[1]} channels")
    elif op.kind == "concat":
        axis = attrs["axis"]
        total = sum(shape[axis] for shape in inputs)
        output = (*first[:axis], total, *first[axis + 1 :])
    elif op.kind in ("max_pool2d", "avg_pool2d", "resize"):
        output = (first[0], first[1], *op.output[2:])
    elif op.kind == "pad":
        output = tuple(s + sum(p) for s, p in zip(first, attrs["padding"], strict=True))
    elif op.kind in ("mean", "amax"):
        axes = attrs["axes"]
        kept = [1 if i in axes else s for i, s in enumerate(first)]
        output = tuple(s for i, s in enumerate(kept) if attrs["keepdim"] or i not in axes)
    elif op.kind == "permute":
        output = tuple(first[d] for d in attrs["dims"])
    elif op.kind in ("slice", "gather") and first[attrs["axis"]] == old[attrs["axis"]]:
        output = tuple(
            o if i == attrs["axis"] else f
            for i, (o, f) in enumerate(zip(op.output, first, strict=True))
        )
    elif op.kind == "reshape":
        output = _reshaped(op, first, name)
    else:
        raise Unresizable(f"{name}: {op.kind}")
    return make_op(
        op.kind, inputs, output, activation=op.activation, constants=op.constants, **attrs
    )


def _broadcast(shapes: tuple[Shape, ...], name: str) -> Shape:
    rank = max(len(shape) for shape in shapes)
    result = []
    for sizes in zip(*[(1,) * (rank - len(s)) + s for s in shapes], strict=True):
        large = {size for size in sizes if size != 1}
        if len(large) > 1:
            raise Unresizable(f"{name}: shapes {shapes} do not broadcast")
        result.append(large.pop() if large else 1)
    return tuple(result)


def _reshaped(op: Op, new: Shape, name: str) -> Shape:
    old, output = op.inputs[0], op.output
    if len(output) == 2 and output == (old[0], math.prod(old[1:])):
        return (new[0], math.prod(new[1:]))
    plain = [size for size in old if size != 1]
    if plain == [size for size in output if size != 1] and len(set(plain)) == len(plain):
        replace = {o: n for o, n in zip(old, new, strict=True) if o != 1}
        return tuple(replace.get(size, size) for size in output)
    raise Unresizable(f"{name}: reshape {old} to {output}")
