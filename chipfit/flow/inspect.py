# SPDX-License-Identifier: Apache-2.0
"""``inspect``: what can be changed in a network, and what a target dislikes in it; no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.cost.cost import Cost
from chipfit.cost.curve import WidthCurve
from chipfit.cost.location import default_table_path
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.flow.inspect_costs import Deadline, KnownCosts, known_costs, unknown_operators
from chipfit.flow.inspect_layers import InspectedLayer, counted_layers, inspect_layers
from chipfit.flow.inspect_widths import COMMON_ALIGNMENT, misaligned, width_curves
from chipfit.flow.network import InputShape, load_network
from chipfit.graph.capture import capture
from chipfit.graph.channels import ChannelGroup, channel_groups
from chipfit.rewrite.slice import side_sizes
from chipfit.targets import Target, create
from chipfit.targets.base import Refusal, Roofline

#: Seconds that an inspection may take.
SECONDS = 60.0


@dataclass(frozen=True)
class Inspection:
    """What was found out about a network.

    Args:
        network: Its name.
        target: Name of the target; ``""`` without one.
        input_shape: What it was inspected at.
        groups: Channels that change together, frozen ones with the reason.
        unsupported: Operators that chipfit does not know.
        refusals: Operators that the target cannot run, those above among them.
        misaligned: Widths that the target dislikes; see
            :func:`chipfit.flow.inspect_widths.misaligned`.
        macs: Multiply-accumulates of one image; those of unknown operators are not counted.
        params: Parameters after folding.
        cost: Of the whole network on the target; ``None`` where it is not known.
        cost_unknown: Why not.
        layers: The dearest first.
        roofline: Of the device, where known.
        curves: Cost against channel count, the dearest first.
        left_out: What was not done, and why.
        seconds: How long it took.
    """

    network: str
    target: str
    input_shape: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]
    unsupported: tuple[Refusal, ...]
    refusals: tuple[Refusal, ...]
    misaligned: tuple[dict[str, Any], ...]
    macs: int
    params: int
    cost: Cost | None
    cost_unknown: str
    layers: tuple[InspectedLayer, ...]
    roofline: Roofline | None
    curves: tuple[WidthCurve, ...] = ()
    left_out: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit inspect --json`` prints."""
        return {
            "network": self.network, "target": self.target or None,
            "input_shape": list(self.input_shape),
            "groups": [
                {"name": group.name, "channels": group.channels, "layers": group.layers,
                 "frozen": group.frozen or None}
                for group in self.groups
            ],
            "unsupported": [_refusal(r) for r in self.unsupported],
            "refusals": [_refusal(r) for r in self.refusals],
            "misaligned": list(self.misaligned), "macs": self.macs, "params": self.params,
            "cost": dict(self.cost.values) if self.cost else None,
            "provenance": self.cost.provenance if self.cost else None,
            "spread": dict(self.cost.spread) if self.cost else {},
            "cost_unknown": self.cost_unknown or None,
            "layers": [layer.to_json() for layer in self.layers],
            "roofline": _roofline(self.roofline),
            "curves": [curve.to_json() for curve in self.curves],
            "left_out": list(self.left_out), "seconds": round(self.seconds, 2),
        }  # fmt: skip


def _refusal(refusal: Refusal) -> dict[str, str]:
    return {"name": refusal.name, "kind": refusal.kind, "reason": refusal.reason}


def _roofline(roofline: Roofline | None) -> dict[str, Any] | None:
    if roofline is None:
        return None
    return {
        "macs_per_s": roofline.macs_per_s, "bytes_per_s": roofline.bytes_per_s,
        "memory": roofline.memory, "activation_bytes_per_s": roofline.activation_bytes_per_s,
        "activation_memory": roofline.activation_memory or None,
        "ridge_macs_per_byte": roofline.ridge_macs_per_byte, "provenance": roofline.provenance,
    }  # fmt: skip


def inspect(
    net: str | nn.Module,
    input_shape: InputShape | None = None,
    target: str | Target | None = None,
    *,
    seconds: float = SECONDS,
    table: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Inspection:
    """Tell what can be changed in a network, what is frozen and why, and what costs how much.

    No network is refused: operators that chipfit or the target does not know are named, and all
    others are reported. Without a target, layers are sorted by MACs and widths are compared with
    multiples of 8.

    Args:
        net: A module, or a name as on the command line.
        input_shape: ``(1, C, H, W)``; the network's own where it has one, else 1,3,224,224.
        target: A target or its name.
        seconds: Time for all of it. Tracing and costing the whole network are done in any case;
            the curves take what is left, the dearest layers first.
        table: Path of the cost table; the user's own where ``None``.
        seed: Of the weights of a network built by name.
        progress: Called with lines that tell how far it is.

    Raises:
        BadInput: The network fails on such an input, or ``seconds`` is negative.
        UnknownName: No such network or target.
    """
    if not seconds >= 0:
        raise BadInput(f"seconds={seconds} is not a time", "give seconds, for instance 60")
    deadline = Deadline(seconds)
    say = progress or (lambda line: None)
    chosen = create(target) if isinstance(target, str) else target
    loaded = load_network(net, input_shape=input_shape, seed=seed)
    program = capture(loaded.net, loaded.examples())
    workload = program.workload
    groups = channel_groups(loaded.net, loaded.examples())
    costs = KnownCosts(None, tuple(counted_layers(workload)), (), (), "no target is given")
    roofline = None
    curves: list[WidthCurve] = []
    left_out: list[str] = []
    if chosen is not None:
        with CostTable(table or default_table_path()) as prices:
            costs = known_costs(program, chosen, prices, deadline)
            say(f"costed {len(costs.layers)} layers on {chosen.name}")
            left_out += costs.left_out
            roofline = chosen.roofline()
            layer_ms = {x.name: x.cost.get("latency_ms") or 0.0 for x in costs.layers}
            if not any(layer_ms.values()):
                left_out.append(f"curves of cost against width: {chosen.name} knows no latency")
            else:
                curves, missed = width_curves(
                    workload, costs.known, groups, side_sizes(loaded.net), chosen, prices,
                    layer_ms, deadline, say,
                )  # fmt: skip
                left_out += missed
    precision = chosen.precision if chosen else "float32"
    alignment = chosen.alignment if chosen else COMMON_ALIGNMENT
    return Inspection(
        loaded.name, chosen.name if chosen else "", loaded.input_shape, tuple(groups),
        tuple(unknown_operators(workload)), costs.refusals,
        tuple(misaligned(groups, curves, alignment)), workload.macs, workload.parameter_count,
        costs.total, costs.unknown,
        tuple(inspect_layers(workload, costs.layers, precision, roofline)), roofline,
        tuple(curves), tuple(left_out), deadline.spent_s,
    )  # fmt: skip
