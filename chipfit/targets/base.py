# SPDX-License-Identifier: Apache-2.0
"""``Target``: a device with its runtime, version and configuration; it prices networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from chipfit.cost.cost import Cost
from chipfit.errors import UnsupportedOp
from chipfit.graph.memory_graph import MemoryGraph, memory_graph
from chipfit.graph.operator_order import ordered
from chipfit.graph.workload import Program, Workload
from chipfit.registry import Registry
from chipfit.targets.layer import LayerCost, NetworkCost, Refusal, RuntimeNode
from chipfit.targets.roofline import Roofline

__all__ = [
    "TARGETS", "LayerCost", "NetworkCost", "Refusal", "Roofline", "RuntimeNode", "Target", "Unit",
]  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """What a target prices on its own: a small workload, and the nodes of it that are charged.

    On Ethos-U a unit is an operator between its neighbours; on CPU runtimes it is a whole block.
    A price is mostly looked up by ``key``, so the workload is cut out only when it is asked for.

    Args:
        key: Stable identity by structure; equal units share one row of the cost table.
        source: The network that the unit is a part of.
        indices: Its nodes there, ascending.
        focus: Indices into ``workload.nodes`` whose cost is read.
    """

    key: str
    source: Workload
    indices: tuple[int, ...]
    focus: tuple[int, ...]

    @cached_property
    def workload(self) -> Workload:
        """What is compiled or measured."""
        return self.source.part(self.indices)

    def __reduce__(
        self,
    ) -> tuple[type[Unit], tuple[str, Workload, tuple[int, ...], tuple[int, ...]]]:
        # Another process gets the part, not the whole network.
        return Unit, (self.key, self.workload, tuple(range(len(self.indices))), self.focus)


class Target(ABC):
    """Prices workloads; the registry :data:`TARGETS` holds a factory per name."""

    #: Registered name, for instance ``"ethos-u55-128"``.
    name: str
    #: Weights and activations: ``"int8"`` or ``"float32"``.
    precision: str
    #: File that the target runs: ``"tflite"``, ``"onnx"`` or ``""`` where it runs none.
    file_format: str
    #: Channel counts should be multiples of this.
    alignment: int
    #: How whole-network figures are come by: ``"compiled"``, ``"measured"`` or ``"modelled"``.
    provenance: str
    #: Options that differ from their defaults, as they stand in a name.
    options: Mapping[str, str] = {}
    #: Values of the option ``precision``; empty where the target has no such option.
    precisions: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """The name with the options: what :func:`chipfit.targets.create` makes the same from."""
        options = ",".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}:{options}" if options else self.name

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Everything that a cost depends on besides the workload, versions included."""

    @abstractmethod
    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators that this target cannot run; empty where it runs them all."""

    @abstractmethod
    def cost(self, network: Workload | Program) -> NetworkCost:
        """Compile, measure or model a whole network (batch 1).

        A bare workload gets synthetic weights, seeded by its own structure.

        Raises:
            UnsupportedOp: An operator cannot run; the message names it and its place.
        """

    @abstractmethod
    def cost_file(self, path: Path) -> NetworkCost:
        """Compile or measure an exported file of :attr:`file_format`."""

    def cost_file_parts(self, path: Path) -> tuple[NetworkCost, list[Refusal]]:
        """Cost a file as far as its operators can be costed, and name those that cannot.

        Where some cannot, the total lacks latency: a sum over the others would be made up.
        """
        return self.cost_file(path), []

    @abstractmethod
    def units(self, workload: Workload) -> list[Unit]:
        """Cut a workload into the units whose costs add up to the predicted whole."""

    @abstractmethod
    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Compile, measure or model units, one cost each, in order."""

    #: Whether units may be costed in parallel processes (measured targets say no).
    parallel = True

    @abstractmethod
    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return the figures that follow from the workload alone, without units.

        MACs, parameters and weight bytes; peak memory only where it is the target's true figure.
        """

    def memory_graph(self, workload: Workload) -> MemoryGraph:
        """Return the operators as the device's memory for activations sees them.

        They stand in the order in which exported files run them, the one of the lowest peak.
        """
        from chipfit.targets.footprint import ELEMENT_BYTES

        return memory_graph(ordered(workload), ELEMENT_BYTES[self.precision])

    def fixed_cost(self) -> dict[str, float]:
        """Return what every network costs besides its units: a runtime's call overhead."""
        return {}

    def cost_many(self, networks: Sequence[Workload | Program | Path]) -> list[NetworkCost]:
        """Cost several networks so that their figures compare fairly with each other.

        Measured targets interleave them in one session.
        """
        return [
            self.cost_file(network) if isinstance(network, Path) else self.cost(network)
            for network in networks
        ]

    def runtime_nodes(self, network: Workload | Program | Path) -> list[RuntimeNode]:
        """Return the operators that the runtime really executes, with their shares of the time.

        Empty where the target has no runtime that tells.

        Raises:
            UnsupportedOp: An operator cannot run.
        """
        return []

    def roofline(self) -> Roofline | None:
        """Return the device's peak speeds, or ``None`` where they are unknown."""
        return None

    def anchors(self, stored: Mapping[str, float]) -> dict[str, float]:
        """Adopt, or measure, the figures that all rows of one cost table must share.

        Args:
            stored: What the table holds for this target's fingerprint.

        Returns:
            All of them by name; the table stores those that it lacks. Compiled targets have none.
        """
        return {}

    def check(self, workload: Workload) -> None:
        """Raise ``UnsupportedOp`` naming every operator that this target refuses."""
        refused = self.refusals(workload)
        if refused:
            places = "; ".join(f"{r.name}: {r.kind} ({r.reason})" for r in refused[:8])
            more = f" and {len(refused) - 8} more" if len(refused) > 8 else ""
            raise UnsupportedOp(
                f"{self.name} cannot run {len(refused)} operator(s): {places}{more}",
                "replace them, or choose another target",
            )


#: Factories of targets: ``TARGETS.get(name).value(**options) -> Target``.
TARGETS: Registry = Registry("target", "chipfit.targets")
