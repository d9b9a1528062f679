# SPDX-License-Identifier: Apache-2.0
"""``profile``: what a network costs on a target, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.cost.cost import Cost
from chipfit.cost.location import default_table_path
from chipfit.cost.predict import predict as predict_cost
from chipfit.cost.table import CostTable
from chipfit.errors import UnsupportedOp
from chipfit.flow.calibration import ensure_calibrated
from chipfit.flow.inspect_costs import unknown_operators
from chipfit.flow.network import InputShape, load_network
from chipfit.graph.capture import capture
from chipfit.graph.workload import Workload
from chipfit.targets import Target, create
from chipfit.targets.base import NetworkCost
from chipfit.targets.measured import MeasuredTarget


@dataclass(frozen=True)
class Profile:
    """The cost of a network on a target.

    Args:
        network: Its name.
        target: Name of the target.
        fingerprint: Everything the cost depends on besides the network.
        cost: Total and layers, these in the order of execution.
        noise: Relative difference that this machine shows between a network and itself (A/A): two
            networks closer than that cannot be told apart. ``None`` where nothing was measured, or
            it was not asked for.
    """

    network: str
    target: str
    fingerprint: str
    cost: NetworkCost
    noise: float | None = None

    def shares(self) -> list[float | None]:
        """Return each layer's share of the layers' latency; ``None`` where it is not known."""
        known = [layer.cost.get("latency_ms") for layer in self.cost.layers]
        total = sum(value for value in known if value is not None)
        return [None if value is None or not total else value / total for value in known]

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit profile --json`` prints."""
        total = self.cost.total
        return {
            "network": self.network, "target": self.target, "fingerprint": self.fingerprint,
            "provenance": total.provenance, "cost": dict(total.values),
            "spread": dict(total.spread), "noise": self.noise,
            "layers": [
                {"name": layer.name, "kind": layer.kind, "runs_on": layer.runs_on,
                 "precision": layer.precision, "share": share, "cost": dict(layer.cost.values)}
                for layer, share in zip(self.cost.layers, self.shares(), strict=True)
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
    input_shape: InputShape | None = None,
    *,
    predict: bool = False,
    table: str | Path | None = None,
    seed: int = 0,
    noise: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Profile:
    """Return what ``net`` costs on ``target``.

    Args:
        net: A module, or a name as on the command line.
        target: A target or its name.
        input_shape: ``(1, C, H, W)``; the network's own where it has one, else 1,3,224,224.
        predict: Answer from the cost table, without compiling or measuring the whole network. A
            table that was never calibrated for the target is calibrated first.
        table: Path of the cost table; the user's own where ``None``.
        seed: Of the weights of a network built by name; they change latency hardly at all.
        noise: Also measure a network against itself, where the target measures here.
        progress: Called with lines about a calibration.

    Raises:
        UnsupportedOp: The target cannot run an operator; all of them are named.
        UnknownName: No such network or target.
    """
    chosen = create(target) if isinstance(target, str) else target
    loaded = load_network(net, input_shape=input_shape, seed=seed)
    program = capture(loaded.net, loaded.examples())
    _check_known(loaded.name, program.workload)
    if predict:
        with CostTable(table or default_table_path()) as prices:
            ensure_calibrated(chosen, prices, progress, program.workload)
            cost = predict_cost(program.workload, chosen, prices)
    else:
        cost = chosen.cost(program)
    known = {
        "macs": program.workload.macs, "params": program.workload.parameter_count,
        **chosen.static_cost(program.workload), **cost.total.values,
    }  # fmt: skip
    total = Cost(known, cost.total.provenance, cost.total.spread)
    spread = None
    if noise and not predict and isinstance(chosen, MeasuredTarget):
        spread = chosen.noise()
    return Profile(
        loaded.name, chosen.name, chosen.fingerprint, NetworkCost(total, cost.layers), spread
    )


def _check_known(name: str, workload: Workload) -> None:
    """Raise where operators are unknown: pricing in pieces would name only the first of them."""
    unknown = unknown_operators(workload)
    if unknown:
        places = "; ".join(f"{r.name}: {r.kind}" for r in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise UnsupportedOp(
            f"{name} has {len(unknown)} operator(s) that chipfit does not know, so its cost is"
            f" unknown: {places}{more}",
            "replace them; chipfit inspect tells what all other layers cost",
        )
