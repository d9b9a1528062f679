# SPDX-License-Identifier: Apache-2.0
"""``NodeRule``: how many edges every node of a cell keeps.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, section 2.4:
a node keeps its two strongest edges from different nodes before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from chipfit.errors import BadInput

#: Attribute by which a network of cells carries its rule.
ATTRIBUTE = "decode_nodes"
#: Attribute by which it says what runs for a node without edges.
EMPTY = "empty_nodes"


@dataclass(frozen=True)
class NodeRule:
    """Which choices are the edges into one node, and how many of these stay.

    Args:
        nodes: By node, the choices that decide its edges.
        edges: That a node keeps; one with fewer keeps all.
        absent: Operation that leaves an edge out.

    Raises:
        BadInput: There is no node, or none of its edges would stay.
    """

    nodes: tuple[tuple[str, ...], ...]
    edges: int = 2
    absent: str = "none"

    def __post_init__(self) -> None:
        if not self.nodes or not all(self.nodes) or self.edges < 1:
            raise BadInput("a rule for nodes needs edges, of which at least one stays")

    def holds(self, architecture: Mapping[str, Any]) -> bool:
        """Return whether every node has as many edges as it is to keep."""
        return all(
            sum(architecture[name] != self.absent for name in own) == min(self.edges, len(own))
            for own in self.nodes
        )


def node_rule_of(net: nn.Module) -> NodeRule | None:
    """Return the rule that a network carries, or ``None``.

    Raises:
        BadInput: Its attribute ``decode_nodes`` is none.
    """
    found = getattr(net, ATTRIBUTE, None)
    if found is not None and not isinstance(found, NodeRule):
        raise BadInput(
            f"the network's decode_nodes is a {type(found).__name__}, not a NodeRule",
            "make it of chipfit.space.node_rule.NodeRule",
        )
    return found


def empty_nodes_of(net: nn.Module) -> Mapping[str, tuple[str, str]]:
    """Return what a network runs for nodes without edges, by the module that sums their edges.

    Its attribute ``empty_nodes`` names two modules: one that makes zeros, and the one that it
    reads. Networks without the attribute run nothing.
    """
    found = getattr(net, EMPTY, {})
    return found if isinstance(found, Mapping) else {}
