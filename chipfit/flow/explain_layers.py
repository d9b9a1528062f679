# SPDX-License-Identifier: Apache-2.0
"""Layer by layer: float32 beside int8, and why a layer stays in float."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chipfit.graph.op import Op
from chipfit.graph.workload import Node, Workload
from chipfit.targets.layer import RuntimeNode

#: Activations that a quantised operator carries for free: its range ends where they clip.
FREE_ACTIVATIONS = frozenset({"none", "relu", "relu6"})
#: Operators that move data, whatever its type.
MOVES = frozenset({"reshape", "permute", "slice", "concat", "pad", "pixel_shuffle", "resize"})


@dataclass(frozen=True)
class LayerPair:
    """A layer as it runs in float32 and in int8.

    Args:
        name: Of the network's node.
        kind: What it does, finer than the operator's kind: a convolution may be ``pointwise``,
            ``depthwise`` or just ``conv2d``.
        precision: What it computes in, in the int8 network; ``"int8+float32"`` where both.
        float_share: Of the float network's time, conversions apart.
        int8_share: Of the int8 network's time, conversions apart.
        staying_share: The part of that which is computed in float.
        conversion_share: Of the int8 network's time, for conversions at this layer.
        speed_up: Time in float32 divided by time in int8; ``None`` where it takes none.
        executed: What the runtime executes for it in the int8 network.
        reason: Why (part of) it stays in float; ``""`` where it does not.
    """

    name: str
    kind: str
    precision: str
    float_share: float
    int8_share: float
    staying_share: float
    conversion_share: float
    speed_up: float | None
    executed: tuple[str, ...]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {**asdict(self), "executed": list(self.executed)}


def pair_layers(
    workload: Workload, in_float: Sequence[RuntimeNode], in_int8: Sequence[RuntimeNode],
    ratio: float, quantisable: frozenset[str],
) -> list[LayerPair]:  # fmt: skip
    """Return every layer with both of its shares.

    Args:
        workload: The network.
        in_float: What the runtime executes in float32.
        in_int8: The same in int8.
        ratio: Time of the int8 network divided by that of the float network.
        quantisable: ONNX operators that the quantiser knows.
    """
    own_float, _ = _by_layer(in_float)
    own_int8, converting = _by_layer(in_int8)
    pairs = []
    for node in workload.nodes:
        before = own_float.get(node.name, [])
        after = own_int8.get(node.name, [])
        float_share = sum(n.share for n in before)
        int8_share = sum(n.share for n in after)
        timed = float_share > 0 and int8_share > 0
        pairs.append(
            LayerPair(
                node.name, fine_kind(node.op), _precision(after), float_share, int8_share,
                sum(n.share for n in after if n.precision.startswith("float")),
                converting.get(node.name, 0.0),
                float_share / (int8_share * ratio) if timed else None,
                tuple(dict.fromkeys(n.kind for n in after)),
                _reason(node, after, quantisable),
            )
        )  # fmt: skip
    return pairs


def fine_kind(op: Op) -> str:
    """Return the operator's kind; convolutions are told apart by what runtimes tell apart."""
    if op.kind != "conv2d":
        return op.activation if op.kind == "activation" else op.kind
    if op.depthwise:
        return "depthwise"
    return "pointwise" if tuple(op["kernel"]) == (1, 1) else "conv2d"


def conversion_share(nodes: Sequence[RuntimeNode]) -> float:
    """Return the share of the time that goes into changes of layout and precision."""
    return sum(node.share for node in nodes if node.conversion)


def conversion_kinds(nodes: Sequence[RuntimeNode]) -> dict[str, float]:
    """Return that share by the runtime's operator type, the largest first."""
    found: dict[str, float] = {}
    for node in nodes:
        if node.conversion:
            found[node.kind] = found.get(node.kind, 0.0) + node.share
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _by_layer(
    nodes: Sequence[RuntimeNode],
) -> tuple[dict[str, list[RuntimeNode]], dict[str, float]]:
    """Return what computes, by layer, and the shares of conversions by layer."""
    computing: dict[str, list[RuntimeNode]] = {}
    converting: dict[str, float] = {}
    for node in nodes:
        if node.conversion:
            converting[node.layer] = converting.get(node.layer, 0.0) + node.share
        elif node.layer:
            computing.setdefault(node.layer, []).append(node)
    return computing, converting


def _precision(nodes: Sequence[RuntimeNode]) -> str:
    found = {node.precision for node in nodes if node.precision}
    return "+".join(sorted(found, key=("int8", "float16", "float32").index)) if found else ""


def _reason(node: Node, nodes: Sequence[RuntimeNode], quantisable: frozenset[str]) -> str:
    floating = [n for n in nodes if n.precision.startswith("float")]
    if not floating or node.op.kind in MOVES:
        return ""
    names = dict.fromkeys(_onnx_kind(n) for n in floating)
    unknown = [name for name in names if name not in quantisable]
    act = node.op.activation
    if act not in FREE_ACTIVATIONS and node.op.kind != "activation":
        mixed = len(floating) < len(nodes)
        return (
            f"its activation {act} is computed in float32"
            + (", behind the int8 operator" if mixed else " and so is the operator")
            + f" ({', '.join(names)})"
        )
    if unknown:
        return f"the quantiser has no int8 form of {', '.join(unknown)}"
    return f"the runtime has no int8 kernel for {', '.join(names)} here"


def _onnx_kind(node: RuntimeNode) -> str:
    """Return the operator of the file that the runtime's own came from, by its name."""
    last = node.name.rpartition("/")[2] if "/node_" in f"/{node.name.lstrip('/')}" else ""
    match = re.match(r"[A-Za-z]+", last)
    return match[0] if match else node.kind
