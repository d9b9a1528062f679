# SPDX-License-Identifier: Apache-2.0
"""``operators``: which operators networks consist of, as a form for measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from chipfit.flow.network import InputShape, load_network
from chipfit.graph.capture import capture
from chipfit.graph.op import Op, Shape, make_op
from chipfit.targets.measurements_csv import row_of, signature, write_operators
from chipfit.targets.windows import TRANSPARENT

#: Shares of an operator's channels that searches over widths come by.
SCALES = (0.25, 0.5, 0.75)
#: Axes of this many channels or fewer are images, which no search changes.
_IMAGE_CHANNELS = 4


def operators(
    nets: Sequence[str | nn.Module],
    input_shape: InputShape | None = None,
    output: str | Path | None = None,
    scaled: bool = False,
) -> list[dict[str, str]]:
    """Return the distinct operators of networks, and write them as a form to fill in.

    Measured on a device, they make it a target: ``measurements:file=FILE``. Reshapes are left out,
    as they are views.

    Args:
        nets: Modules, or names as on the command line.
        input_shape: ``(1, C, H, W)``; each network's own where it has one, else 1,3,224,224.
        output: A CSV with the column ``latency_ms`` empty.
        scaled: Add every operator at :data:`SCALES` of its channels, which a search over widths
            asks for: latencies in between are interpolated.

    Returns:
        One row each, with how often it occurs and where first.

    Raises:
        UnknownName: No such network.
        StorageError: The file cannot be written.
    """
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for net in nets:
        loaded = load_network(net, input_shape=input_shape)
        for node in capture(loaded.net, loaded.examples()).workload.nodes:
            if node.op.kind in TRANSPARENT:
                continue
            place = f"{loaded.name}: {node.name}"
            first = {"count": "0", "first_node": place}
            row = rows.setdefault(signature(node.op), row_of(node.op) | first)
            row["count"] = str(int(row["count"]) + 1)
            for share in SCALES if scaled else ():
                op = scaled_op(node.op, share)
                first = {"count": "0", "first_node": f"{place} at {share:g} of its channels"}
                rows.setdefault(signature(op), row_of(op) | first)
    found = list(rows.values())
    if output is not None:
        write_operators(Path(output), found)
    return found


def scaled_op(op: Op, share: float) -> Op:
    """Return ``op`` with a share of its channels, where it has channels that can change.

    Images ``(N, C, H, W)`` scale along C, all other tensors along their last axis. Convolutions
    that are grouped without being depthwise stay as they are.
    """
    grouped = op.kind == "conv2d" and op["groups"] > 1
    if grouped and not op.depthwise:
        return op
    inputs = tuple(_scaled(shape, share) for shape in op.inputs)
    attrs = dict(op.attrs)
    if grouped:
        attrs["groups"] = inputs[0][1]
    return make_op(
        op.kind, inputs, _scaled(op.output, share), activation=op.activation,
        constants=op.constants, **attrs,
    )  # fmt: skip


def _scaled(shape: Shape, share: float) -> Shape:
    axis = 1 if len(shape) == 4 else len(shape) - 1
    if axis < 0 or shape[axis] <= _IMAGE_CHANNELS:
        return shape
    return (*shape[:axis], max(1, round(shape[axis] * share)), *shape[axis + 1 :])
