# SPDX-License-Identifier: Apache-2.0
"""``analytic``: counts that hold on any device. It reports no latency, as counts do not tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.graph.op import Op
from chipfit.graph.workload import Program, Workload
from chipfit.targets.base import TARGETS, LayerCost, NetworkCost, Refusal, Target, Unit
from chipfit.targets.footprint import (
    check_precision,
    footprint,
    op_weight_bytes,
    peak_activation_bytes,
)
from chipfit.targets.windows import single_units


class Analytic(Target):
    """MACs, parameters, weight bytes and peak activation memory.

    Args:
        precision: ``"int8"`` or ``"float32"``; decides the bytes.

    Raises:
        BadInput: Another precision.
    """

    name = "analytic"
    file_format = ""
    alignment = 1
    provenance = "modelled"
    parallel = False  # counting is quicker than starting a process

    def __init__(self, precision: str = "int8") -> None:
        check_precision(precision)
        self.precision = precision

    @property
    def fingerprint(self) -> str:
        """The model of the counts and the precision."""
        return f"analytic model=2 precision={self.precision}"

    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators that the tracer did not understand: their counts are unknown."""
        return [
            Refusal(n.name, str(n.op.get("aten", "unsupported")), "its cost is unknown")
            for n in workload.nodes
            if n.op.kind == "unsupported"
        ]

    def cost(self, network: Workload | Program) -> NetworkCost:
        """Count a whole network.

        Raises:
            UnsupportedOp: An operator was not understood by the tracer.
        """
        workload = network.workload if isinstance(network, Program) else network
        self.check(workload)
        layers = tuple(
            LayerCost(node.name, node.op.kind, self._op_cost(node.op)) for node in workload.nodes
        )
        return NetworkCost(Cost(self.static_cost(workload), self.provenance), layers)

    def cost_file(self, path: Path) -> NetworkCost:
        """Refuse: this target runs no files."""
        raise BadInput(f"the target analytic reads no files, not even {path}", "cost the network")

    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return all figures of this target; they are exact for its model."""
        peak = peak_activation_bytes(workload, self.precision)
        return footprint(workload, self.precision) | {"peak_sram_bytes": peak}

    def units(self, workload: Workload) -> list[Unit]:
        """Return every operator alone."""
        return single_units(workload)

    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Count each unit's operator."""
        for unit in units:
            self.check(unit.workload)
        return [self._op_cost(unit.workload.nodes[unit.focus[0]].op) for unit in units]

    def _op_cost(self, op: Op) -> Cost:
        values = {
            "macs": op.macs,
            "params": op.parameter_count,
            "weight_bytes": op_weight_bytes(op, self.precision),
        }
        return Cost(values, self.provenance)


@TARGETS.register(
    "analytic", summary="MACs, parameters, bytes and peak activation memory; no latency"
)
def analytic(precision: str = "int8") -> Analytic:
    """Return the counting target."""
    return Analytic(precision)
