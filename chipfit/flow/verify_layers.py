# SPDX-License-Identifier: Apache-2.0
"""Predicted against real, layer by layer: operators of a file found again in its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chipfit.graph.workload import Workload
from chipfit.targets.base import LayerCost


@dataclass(frozen=True)
class LayerComparison:
    """One stretch of a network, as it was predicted and as its file costs.

    Args:
        name: Of the operator, or ``first .. last`` of those that are priced together.
        nodes: The network's operators in it.
        real_layers: The file's operators in it.
        predicted_ms: From the cost table.
        real_ms: Compiled or measured.
    """

    name: str
    nodes: tuple[str, ...]
    real_layers: tuple[str, ...]
    predicted_ms: float
    real_ms: float

    @property
    def error(self) -> float | None:
        """Return ``predicted / real - 1``; ``None`` where the real latency is zero."""
        return self.predicted_ms / self.real_ms - 1 if self.real_ms else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {
            "name": self.name, "nodes": list(self.nodes), "real_layers": list(self.real_layers),
            "predicted_ms": self.predicted_ms, "real_ms": self.real_ms, "error": self.error,
        }  # fmt: skip


class NodeFinder:
    """Finds the network's operator that an operator of a file was made from, by its name.

    Args:
        workload: The network.
    """

    def __init__(self, workload: Workload) -> None:
        self._owners: dict[str, str] = {}
        # A node's own name wins over a module that another one absorbed.
        for names in (
            [(node.name, node.name) for node in workload.nodes],
            [(node.module, node.name) for node in workload.nodes],
            [(module, node.name) for node in workload.nodes for module in node.absorbed],
        ):
            for name, owner in names:
                if name:
                    self._owners.setdefault(name, owner)

    def find(self, name: str) -> str:
        """Return the operator's name in the network; ``""`` where it has none.

        Exporters name operators by the path of their module, compilers by the tensor written, with
        suffixes for the parts of one operator.
        """
        if "/" in name:
            return self._of_path(name)
        while name:
            for candidate in (name, name.partition(":")[0]):
                if candidate in self._owners:
                    return self._owners[candidate]
            name = name.rpartition("_")[0]
        return ""

    def _of_path(self, name: str) -> str:
        parts: list[str] = []
        *scopes, last = name.strip("/").split("/")
        for part in scopes:
            # An entry of a ModuleList or Sequential repeats the name of its parent: conv/conv.0.
            if parts and part.startswith(f"{parts[-1]}."):
                parts.pop()
            parts.append(part)
        path = ".".join(parts)
        kind = last.partition("_")[0].lower()
        for candidate in (f"{path}.{kind}" if path else kind, path):
            if candidate in self._owners:
                return self._owners[candidate]
        return ""


def compare_layers(
    workload: Workload, real: Sequence[LayerCost], predicted: Sequence[LayerCost]
) -> list[LayerComparison]:
    """Put predicted and real latency side by side, over stretches that both sides share.

    The file's operators that belong to no operator of the network, such as conversions of layout,
    are charged to the stretch before them. A predicted stretch of which nothing is left in the
    file, because the runtime fused it away, is joined to the one before it.

    Args:
        workload: The network.
        real: Layers of the file; those without latency are passed over.
        predicted: Layers of the prediction, in the order of the network.

    Returns:
        Empty where no operator of the file can be found in the network.
    """
    finder = NodeFinder(workload)
    names = [_nodes(workload, layer.name) for layer in predicted]
    place = {node: i for i, own in enumerate(names) for node in own}
    found: list[list[LayerCost]] = [[] for _ in predicted]
    waiting: list[LayerCost] = []
    last: int | None = None
    for layer in real:
        if "latency_ms" not in layer.cost:
            continue
        last = place.get(finder.find(layer.name), last)
        if last is None:
            waiting.append(layer)
        else:
            found[last] += [*waiting, layer]
            waiting = []
    if last is None:
        return []
    stretches: list[tuple[list[str], list[LayerCost], float]] = []
    early: tuple[list[str], float] = ([], 0.0)
    for own, layers, guess in zip(names, found, predicted, strict=True):
        predicted_ms = guess.cost.get("latency_ms")
        if predicted_ms is None:
            continue
        if layers:
            stretches.append(([*early[0], *own], list(layers), early[1] + predicted_ms))
            early = ([], 0.0)
        elif stretches:
            before = stretches[-1]
            stretches[-1] = ([*before[0], *own], before[1], before[2] + predicted_ms)
        else:
            early = ([*early[0], *own], early[1] + predicted_ms)
    return [
        LayerComparison(
            own[0] if len(own) == 1 else f"{own[0]} .. {own[-1]}", tuple(own),
            tuple(dict.fromkeys(layer.name for layer in layers)), predicted_ms,
            sum(layer.cost["latency_ms"] for layer in layers),
        )
        for own, layers, predicted_ms in stretches
    ]  # fmt: skip


def _nodes(workload: Workload, name: str) -> tuple[str, ...]:
    """Return the operators of a predicted layer, which a block names ``first .. last``."""
    if name in workload.by_name:
        return (name,)
    first, dots, last = name.partition(" .. ")
    names = [node.name for node in workload.nodes]
    if dots and first in workload.by_name and last in workload.by_name:
        return tuple(names[names.index(first) : names.index(last) + 1])
    return ()
