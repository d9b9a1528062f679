# SPDX-License-Identifier: Apache-2.0
"""``OperatorTarget``: a device of one's own, from the latency of single operators."""

from __future__ import annotations

import hashlib
import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.graph.op import Op
from chipfit.graph.workload import Program, Workload
from chipfit.targets.base import LayerCost, NetworkCost, Refusal, Target, Unit
from chipfit.targets.footprint import footprint, op_weight_bytes
from chipfit.targets.windows import TRANSPARENT, single_units

#: Keys of an operator's cost that add up over a network.
_ADDITIVE = ("latency_ms", "cycles", "energy_mj")


class OperatorTarget(Target):
    """A device whose network is the sum of its operators.

    A subclass says what one operator takes; profile, predict, fit and inspect follow from that.
    Its own attributes may be set in ``__init__``; they must survive pickling, as worker processes
    get the target. See ``examples/own_device.py``.

    Attributes:
        name: What the device is called.
        precision: Of weights and activations: ``"int8"``, ``"float16"`` or ``"float32"``.
        alignment: Multiple that channel counts should have.
        provenance: How :meth:`latency_ms` comes by its figures: ``"measured"``, ``"modelled"`` or
            ``"predicted"``.
        version: Stands in the fingerprint; change it when figures change that the source file of
            the class does not hold. (Edits of that file change the fingerprint by themselves.)
        call_ms: What every network costs besides its operators.
        runs_on: Where operators run, for lists of layers.
    """

    name = "own-device"
    precision = "float32"
    file_format = ""
    alignment = 1
    provenance = "modelled"
    version = "1"
    call_ms = 0.0
    runs_on = ""
    parallel = False
    _source = ""

    @abstractmethod
    def latency_ms(self, op: Op) -> float | None:
        """Return the milliseconds of one operator, batch 1; ``None`` where it cannot run."""

    def energy_mj(self, op: Op) -> float | None:
        """Return the millijoules of one operator; ``None`` where they are unknown."""
        return None

    def peak_sram_bytes(self, workload: Workload) -> float | None:
        """Return the memory that a network needs; ``None`` where it is unknown."""
        return None

    def why_not(self, op: Op) -> str:
        """Return why an operator without a latency cannot run."""
        return f"{self.name} has no latency for it"

    def op_cost(self, op: Op) -> Cost | None:
        """Return an operator's whole cost, from the methods above; ``None`` where it cannot run.

        Raises:
            BadInput: A figure is negative or not finite.
        """
        values = {"latency_ms": self.latency_ms(op), "energy_mj": self.energy_mj(op)}
        if values["latency_ms"] is None:
            return None
        known = {key: float(value) for key, value in values.items() if value is not None}
        for key, value in known.items():
            if not math.isfinite(value) or value < 0:
                raise BadInput(f"{self.name} gives {key}={value} for {op.kind} {op.inputs}")
        return Cost(known, self.provenance)

    @property
    def fingerprint(self) -> str:
        """Name, version, precision and a digest of the source file of the class."""
        return (
            f"{self.name} version={self.version} precision={self.precision}"
            f" source={self._source_digest()}"
        )

    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators that have no cost."""
        refused = []
        for node in workload.nodes:
            if node.op.kind == "unsupported":
                reason = f"chipfit does not understand {node.op['aten']}"
                refused.append(Refusal(node.name, node.op.kind, reason))
            elif self._cost_of(node.op) is None:
                refused.append(Refusal(node.name, node.op.kind, self.why_not(node.op)))
        return refused

    def cost(self, network: Workload | Program) -> NetworkCost:
        """Add up a network.

        Raises:
            UnsupportedOp: An operator has no cost; all such are named.
        """
        workload = network.workload if isinstance(network, Program) else network
        self.check(workload)
        own = [self._cost_of(node.op) or self._free() for node in workload.nodes]
        total = {
            key: sum(cost.values[key] for cost in own)
            for key in _ADDITIVE
            if own and all(key in cost.values for cost in own)
        }
        total["latency_ms"] = total.get("latency_ms", 0.0) + self.call_ms
        spread = {}
        if any("latency_ms" in cost.spread for cost in own):
            # Neighbouring guesses err alike, so half-widths add up.
            spread["latency_ms"] = sum(cost.spread.get("latency_ms", 0.0) for cost in own)
        layers = tuple(
            LayerCost(
                node.name, node.op.kind,
                Cost(
                    dict(cost.values) | {
                        "macs": node.op.macs, "params": node.op.parameter_count,
                        "weight_bytes": op_weight_bytes(node.op, self.precision),
                    },
                    cost.provenance, dict(cost.spread),
                ),
                self.runs_on, self.precision if self.runs_on else "",
            )
            for node, cost in zip(workload.nodes, own, strict=True)
        )  # fmt: skip
        return NetworkCost(
            Cost(total | self.static_cost(workload), self.provenance, spread), layers
        )

    def cost_file(self, path: Path) -> NetworkCost:
        """Refuse: latencies of operators tell nothing of a file."""
        raise BadInput(
            f"the target {self.name} reads no files, not even {path}", "cost the network"
        )

    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return MACs, parameters, weight bytes and, where known, peak memory."""
        peak = self.peak_sram_bytes(workload)
        return footprint(workload, self.precision) | (
            {} if peak is None else {"peak_sram_bytes": peak}
        )

    def units(self, workload: Workload) -> list[Unit]:
        """Return every operator alone."""
        return single_units(workload)

    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Return each operator's cost."""
        for unit in units:
            self.check(unit.workload)
        ops = [unit.workload.nodes[unit.focus[0]].op for unit in units]
        return [self._cost_of(op) or self._free() for op in ops]

    def fixed_cost(self) -> dict[str, float]:
        """Return what every network costs besides its operators."""
        return {"latency_ms": self.call_ms} if self.call_ms else {}

    def _cost_of(self, op: Op) -> Cost | None:
        """Return ``op_cost``; views of a tensor are free where the device has no figure."""
        cost = self.op_cost(op)
        return self._free() if cost is None and op.kind in TRANSPARENT else cost

    def _free(self) -> Cost:
        return Cost({"latency_ms": 0.0}, self.provenance)

    def _source_digest(self) -> str:
        if not self._source:
            try:
                source = Path(inspect.getfile(type(self))).read_bytes()
            except (OSError, TypeError):  # made in a console: the class has no file
                source = type(self).__qualname__.encode()
            self._source = hashlib.sha256(source).hexdigest()[:8]
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        # A worker process has the class, but not always its file.
        self._source_digest()
        return dict(self.__dict__)
