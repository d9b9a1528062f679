# SPDX-License-Identifier: Apache-2.0
"""Layers of a network by what they cost, with arithmetic intensity against a roofline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.graph.op import Op
from chipfit.graph.workload import Workload
from chipfit.targets.base import LayerCost, Roofline
from chipfit.targets.footprint import ELEMENT_BYTES, op_weight_bytes


@dataclass(frozen=True)
class InspectedLayer:
    """One layer with what limits it.

    Args:
        name: Of the network's operator, or of the target's block of operators.
        kind: What it does.
        cost: Figures by key of :data:`chipfit.cost.COST_KEYS`; empty where it is unknown.
        share: Of the sum over layers of latency, or of MACs where no latency is known.
        macs: Multiply-accumulates.
        macs_per_byte: Per byte of weights, inputs and outputs, each moved once; ``None`` where
            the layer is no operator of the network, or of unknown precision.
        bound: ``"arithmetic"`` or ``"memory"``, by the roofline; ``""`` without one.
        utilisation: Least time by the roofline divided by the layer's latency; ``None`` without.
        runs_on: As in :class:`chipfit.targets.base.LayerCost`.
        precision: The same.
    """

    name: str
    kind: str
    cost: Mapping[str, float]
    share: float
    macs: float
    macs_per_byte: float | None
    bound: str = ""
    utilisation: float | None = None
    runs_on: str = ""
    precision: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit inspect --json`` prints."""
        return {
            "name": self.name, "kind": self.kind, "cost": dict(self.cost), "share": self.share,
            "macs": self.macs, "macs_per_byte": self.macs_per_byte, "bound": self.bound,
            "utilisation": self.utilisation, "runs_on": self.runs_on, "precision": self.precision,
        }  # fmt: skip


def counted_layers(workload: Workload) -> list[LayerCost]:
    """Return every operator with its MACs and parameters: what is known without a device."""
    return [
        LayerCost(n.name, n.op.kind, Cost({"macs": n.op.macs, "params": n.op.parameter_count},
                                          "modelled"))
        for n in workload.nodes
    ]  # fmt: skip


def inspect_layers(
    workload: Workload, layers: Sequence[LayerCost], precision: str, roofline: Roofline | None
) -> list[InspectedLayer]:
    """Sort layers by cost, the dearest first; a layer of unknown cost comes last.

    Args:
        workload: The network.
        layers: From a target, or :func:`counted_layers`.
        precision: Decides the bytes where a layer does not tell its own.
        roofline: Of the device, where known.
    """
    key = "latency_ms" if any("latency_ms" in layer.cost for layer in layers) else "macs"
    total = sum(layer.cost.get(key) or 0.0 for layer in layers)
    found = []
    for layer in layers:
        ops = _ops(workload, layer.name)
        macs = sum(op.macs for op in ops) if ops else layer.cost.get("macs") or 0.0
        weights, activations = _bytes(ops, layer.precision or precision)
        moved = weights + activations
        latency_ms = layer.cost.get("latency_ms")
        bound, utilisation = "", None
        if roofline is not None and ops and moved:
            bound = roofline.bound(macs, weights, activations)
            if latency_ms:
                utilisation = roofline.least_layer_ms(macs, weights, activations) / latency_ms
        found.append(
            InspectedLayer(
                layer.name, layer.kind, dict(layer.cost.values),
                (layer.cost.get(key) or 0.0) / total if total else 0.0,
                macs, macs / moved if moved else None, bound, utilisation, layer.runs_on,
                layer.precision,
            )
        )  # fmt: skip
    return sorted(found, key=lambda layer: -(layer.cost.get(key, -1.0)))


def _ops(workload: Workload, name: str) -> list[Op]:
    """Return the operators of a layer; a block of a CPU runtime is named ``first .. last``."""
    if name in workload.by_name:
        return [workload.by_name[name].op]
    first, dots, last = name.partition(" .. ")
    if dots and first in workload.by_name and last in workload.by_name:
        names = [node.name for node in workload.nodes]
        return [n.op for n in workload.nodes[names.index(first) : names.index(last) + 1]]
    return []


def _bytes(ops: Sequence[Op], precision: str) -> tuple[float, float]:
    """Return the bytes of weights and activations, each operator on its own; 0 where unknown."""
    size = ELEMENT_BYTES.get(precision)
    weights = activations = 0.0
    if size is None:
        return weights, activations
    for op in ops:
        weights += op_weight_bytes(op, precision)
        for i, shape in enumerate(op.inputs):
            if i in op.constants:
                weights += math.prod(shape) * size
            else:
                activations += math.prod(shape) * size
        activations += math.prod(op.output) * size
    return weights, activations
