# SPDX-License-Identifier: Apache-2.0
"""From the operators that a runtime executes to the layers of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chipfit.cost.cost import Cost
from chipfit.graph.workload import Node, Workload
from chipfit.targets.layer import LayerCost, RuntimeNode

if TYPE_CHECKING:
    from chipfit.targets.measured import MeasuredTarget

from chipfit.targets.footprint import op_weight_bytes


def layer_costs(
    workload: Workload | None, total: Cost, nodes: Sequence[RuntimeNode], target: MeasuredTarget
) -> tuple[LayerCost, ...]:
    """Return the layers of a measured network; their latencies add up to its latency.

    A conversion that the runtime inserted is charged to the layer that it follows. Without a
    workload the layers are the runtime's own operators. Where the runtime does not tell what it
    does for which layer, the layers have no latency: only what is known of them without measuring.

    Args:
        workload: The operators, ``None`` for a file.
        total: The whole network's cost.
        nodes: What the runtime executes, in its order.
        target: Where it ran.
    """
    latency = total["latency_ms"]
    if workload is None:
        return tuple(
            LayerCost(
                node.layer or node.name, node.kind,
                Cost({"latency_ms": node.share * latency}, total.provenance),
                target.runs_on, node.precision,
            )
            for node in nodes
        )  # fmt: skip
    shares = layer_shares(workload, nodes)
    precisions = layer_precisions(nodes)
    return tuple(
        LayerCost(
            node.name, node.op.kind,
            Cost(_figures(node, target.precision, shares, latency), total.provenance),
            target.runs_on, precisions.get(node.name, ""),
        )
        for node in workload.nodes
    )  # fmt: skip


def layer_shares(workload: Workload, nodes: Sequence[RuntimeNode]) -> dict[str, float]:
    """Return each layer's share of the time; empty where the runtime names no layers."""
    if not any(node.layer for node in nodes) or not workload.nodes:
        return {}
    shares = dict.fromkeys(workload.by_name, 0.0)
    last = workload.nodes[0].name
    for node in nodes:
        last = node.layer if node.layer in shares else last
        shares[last] += node.share
    return shares


def layer_precisions(nodes: Sequence[RuntimeNode]) -> dict[str, str]:
    """Return the arithmetic that each layer runs in, that of most of its time."""
    found: dict[str, dict[str, float]] = {}
    for node in nodes:
        if node.layer and node.precision and not node.conversion:
            by_type = found.setdefault(node.layer, {})
            by_type[node.precision] = by_type.get(node.precision, 0.0) + node.share
    return {layer: max(by_type, key=lambda p: by_type[p]) for layer, by_type in found.items()}


def _figures(
    node: Node, precision: str, shares: dict[str, float], latency: float
) -> dict[str, float]:
    op = node.op
    known = {
        "macs": op.macs,
        "params": op.parameter_count,
        "weight_bytes": op_weight_bytes(op, precision),
    }
    return ({"latency_ms": shares[node.name] * latency} if shares else {}) | known
