# SPDX-License-Identifier: Apache-2.0
"""``profile``: what a network costs on a target, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.cost.cost import Cost
from chipfit.cost.location import default_table_path
from chipfit.cost.predict import predict as predict_cost
from chipfit.cost.table import CostTable
from chipfit.flow.network import load_network
from chipfit.graph.capture import capture
from chipfit.targets import Target, create
from chipfit.targets.base import NetworkCost


@dataclass(frozen=True)
class Profile:
    """The cost of a network on a target.

    Args:
        network: Its name.
        target: Name of the target.
        fingerprint: Everything the cost depends on besides the network.
        cost: Total and layers.
    """

    network: str
    target: str
    fingerprint: str
    cost: NetworkCost

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit profile --json`` prints."""
        total = self.cost.total
        return {
            "network": self.network, "target": self.target, "fingerprint": self.fingerprint,
            "provenance": total.provenance, "cost": dict(total.values),
            "spread": dict(total.spread),
            "layers": [
                {"name": layer.name, "kind": layer.kind, "cost": dict(layer.cost.values)}
                for layer in self.cost.layers
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        """Return the total and the dearest layers as plain text."""
        total = self.cost.total
        key = "latency_ms" if "latency_ms" in total else "macs"
        lines = [f"{self.network} on {self.target} ({total.provenance})"]
        lines += [f"  {name:16} {value:,.6g}" for name, value in total.values.items()]
        timed = [layer for layer in self.cost.layers if key in layer.cost]
        for layer in sorted(timed, key=lambda item: -item.cost[key])[:10]:
            lines.append(f"  {layer.cost[key]:12,.6g} {key}  {layer.name} ({layer.kind})")
        return "\n".join(lines)


def profile(
    net: str | nn.Module,
    target: str | Target,
    input_shape: tuple[int, ...] | None = None,
    *,
    predict: bool = False,
    table: str | Path | None = None,
    seed: int = 0,
) -> Profile:
    """Return what ``net`` costs on ``target``.

    Args:
        net: A module, or a name as on the command line.
        target: A target or its name.
        input_shape: ``(1, C, H, W)``; the network's own where it has one, else 1,3,224,224.
        predict: Answer from the cost table, without compiling or measuring the whole network.
        table: Path of the cost table; the user's own where ``None``.
        seed: Of the weights of a network built by name; they change latency hardly at all.

    Raises:
        UnsupportedOp: The target cannot run an operator; all of them are named.
        UnknownName: No such network or target.
    """
    chosen = create(target) if isinstance(target, str) else target
    loaded = load_network(net, input_shape=input_shape, seed=seed)
    program = capture(loaded.net, loaded.example())
    if predict:
        cost = predict_cost(program.workload, chosen, CostTable(table or default_table_path()))
    else:
        cost = chosen.cost(program)
    known = {
        "macs": program.workload.macs, "params": program.workload.parameter_count,
        **chosen.static_cost(program.workload), **cost.total.values,
    }  # fmt: skip
    total = Cost(known, cost.total.provenance, cost.total.spread)
    return Profile(loaded.name, chosen.name, chosen.fingerprint, NetworkCost(total, cost.layers))
