# SPDX-License-Identifier: Apache-2.0
"""What a target says of a network's parts: prices of layers, the runtime's operators, refusals."""

from __future__ import annotations

from dataclasses import dataclass

from chipfit.cost.cost import Cost


@dataclass(frozen=True)
class Refusal:
    """An operator that a target cannot run: its place, its kind and the reason."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class LayerCost:
    """The share of one operator in the cost of a network.

    Args:
        name: Name of the operator's node, or of the file's own operator.
        kind: What it does.
        cost: Its share.
        runs_on: ``"npu"``, ``"cpu"``, ``"gpu"`` or ``"mcu"``; ``""`` where the target cannot tell.
        precision: The arithmetic it really runs in, for instance ``"int8"`` or ``"float32"``;
            ``""`` where the target cannot tell.
    """

    name: str
    kind: str
    cost: Cost
    runs_on: str = ""
    precision: str = ""


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a whole network and of its layers.

    ``layers`` need not add up to ``total`` on targets whose compilers overlap operators.
    """

    total: Cost
    layers: tuple[LayerCost, ...] = ()


@dataclass(frozen=True)
class RuntimeNode:
    """One operator of the graph that a runtime really executes, after its own fusions.

    Args:
        name: The runtime's name for it.
        kind: The runtime's operator type, for instance ``"QLinearConv"`` or ``"Reorder"``.
        share: Of the network's latency; the shares of a network add up to 1.
        layer: Name of the network's node that it does (most of) the work of; ``""`` for none.
        precision: The arithmetic it runs in; ``""`` where the runtime does not tell.
        conversion: Whether it only changes layout or precision and computes nothing.
    """

    name: str
    kind: str
    share: float
    layer: str = ""
    precision: str = ""
    conversion: bool = False
