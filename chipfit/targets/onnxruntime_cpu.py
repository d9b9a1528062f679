# SPDX-License-Identifier: Apache-2.0
"""``onnxruntime-cpu``: float32 latency measured on this machine.

Every measurement is a ratio to one reference network that runs in between (see
:mod:`chipfit.targets.timing`). Milliseconds are that ratio times the reference's own latency, which
is measured **once per cost table** and stored there. All figures of a table are therefore in one
currency: they compare with each other although the machine's speed drifts, and their absolute level
is that of the moment when the table was started.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.graph.workload import Program, Workload
from chipfit.machine import cpu_name
from chipfit.targets.base import TARGETS, LayerCost, NetworkCost, Refusal, Target, Unit
from chipfit.targets.footprint import footprint
from chipfit.targets.ort_session import (
    REFERENCE_VERSION,
    empty_bytes,
    onnxruntime_version,
    open_run,
    reference_bytes,
)
from chipfit.targets.timing import (
    Protocol,
    Ratio,
    Run,
    absolute_ms,
    paired_ratios,
    same_against_same,
)
from chipfit.targets.windows import block_units

#: Operators in a unit, at least: an operator alone pays for layout conversions at both ends that it
#: does not pay inside a network.
BLOCK_OPERATORS = 3
REFERENCE_MS = "reference_ms"
CALL_MS = "call_ms"


class OnnxRuntimeCpu(Target):
    """ONNX Runtime's CPU provider, batch 1.

    Args:
        threads: Threads within an operator. With one, times are CPU times; with more they are
            wall-clock times, which other processes disturb.
        protocol: Effort of a measurement.

    Raises:
        MissingBackend: ``onnxruntime`` or ``onnx`` is not installed.
        BadInput: ``threads`` is not a positive number.
    """

    name = "onnxruntime-cpu"
    precision = "float32"
    file_format = "onnx"
    #: The runtime's convolutions work on blocks of 8 channels on AVX2; a depthwise convolution with
    #: C % 4 != 0 falls off them and takes 4 to 6 times as long.
    alignment = 8
    provenance = "measured"
    parallel = False

    def __init__(self, threads: int = 1, protocol: Protocol | None = None) -> None:
        if threads < 1:
            raise BadInput(f"threads={threads} is not a positive number")
        self.threads = threads
        self.protocol = protocol or Protocol()
        self._reference_ms: float | None = None
        self._call_ms: float | None = None
        self._fingerprint = (
            f"{self.name} onnxruntime={onnxruntime_version()} cpu={cpu_name()}"
            f" threads={threads} precision=float32 reference={REFERENCE_VERSION}"
        )

    @property
    def fingerprint(self) -> str:
        """Runtime version, CPU model, threads, precision and reference network."""
        return self._fingerprint

    @property
    def reference_ms(self) -> float:
        """Latency of the reference network that all figures are multiplied with."""
        if self._reference_ms is None:
            self._reference_ms = absolute_ms(self._reference, self.protocol, self._clock)
        return self._reference_ms

    @property
    def call_ms(self) -> float:
        """Overhead of one call, which a network pays once and every unit on its own."""
        if self._call_ms is None:
            self._call_ms = self._measure([empty_bytes()])[0]["latency_ms"]
        return self._call_ms

    def fixed_cost(self) -> dict[str, float]:
        """Return the overhead of the one call that runs a network."""
        return {"latency_ms": self.call_ms}

    def anchors(self, stored: Mapping[str, float]) -> dict[str, float]:
        """Adopt the table's reference latency, or measure it where the table has none."""
        if REFERENCE_MS in stored and CALL_MS in stored:
            self._reference_ms, self._call_ms = stored[REFERENCE_MS], stored[CALL_MS]
        return {REFERENCE_MS: self.reference_ms, CALL_MS: self.call_ms}

    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators that have no export to ONNX."""
        return [
            Refusal(n.name, str(n.op.get("aten", n.op.kind)), "it has no export to ONNX")
            for n in workload.nodes
            if n.op.kind == "unsupported"
        ]

    def cost(self, network: Workload | Program) -> NetworkCost:
        """Measure one network; to compare several, use :meth:`cost_many`.

        Raises:
            UnsupportedOp: An operator cannot be exported or run.
        """
        return self.cost_many([network])[0]

    def cost_file(self, path: Path) -> NetworkCost:
        """Measure an ``.onnx`` file.

        Raises:
            BadInput: The file cannot be read.
            UnsupportedOp: The runtime rejects it.
        """
        return self.cost_many([path])[0]

    def cost_many(self, networks: Sequence[Workload | Program | Path]) -> list[NetworkCost]:
        """Measure networks interleaved in one process, so that they compare fairly."""
        from chipfit.targets.ort_network import network_of

        for network in networks:
            if not isinstance(network, Path):
                self.check(network.workload if isinstance(network, Program) else network)
        subjects = [network_of(network) for network in networks]
        costs = self._measure([subject.data for subject in subjects])
        return [
            NetworkCost(
                Cost({**cost.values, **subject.statics}, self.provenance, cost.spread),
                tuple(
                    LayerCost(name, kind, self._share(cost, share, statics))
                    for name, kind, share, statics in subject.layers()
                ),
            )
            for subject, cost in zip(subjects, costs, strict=True)
        ]

    measure_many = cost_many

    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return MACs, parameters and weight bytes; the runtime's memory is not predicted."""
        return footprint(workload, self.precision)

    def units(self, workload: Workload) -> list[Unit]:
        """Cut where one activation is live, into blocks of at least three operators."""
        return block_units(workload, BLOCK_OPERATORS)

    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Measure blocks, interleaved, without the overhead of the call."""
        for unit in units:
            self.check(unit.workload)
        from chipfit.targets.ort_network import network_of

        costs = self._measure([network_of(unit.workload).data for unit in units])
        return [
            Cost(
                {"latency_ms": max(cost["latency_ms"] - self.call_ms, 0.0)},
                self.provenance,
                cost.spread,
            )
            for cost in costs
        ]

    def noise(self) -> float:
        """Return the A/A spread of this machine now (relative); see ``same_against_same``."""
        return same_against_same(self._reference, self._reference, self.protocol, self._clock)

    def _measure(self, models: Sequence[bytes]) -> list[Cost]:
        makers = [partial(open_run, data, self.threads) for data in models]
        ratios = paired_ratios(makers, self._reference, self.protocol, self._clock)
        return [self._cost(ratio) for ratio in ratios]

    def _cost(self, ratio: Ratio) -> Cost:
        latency = {"latency_ms": ratio.value * self.reference_ms}
        spread = {"latency_ms": ratio.half_width * self.reference_ms}
        return Cost(latency, self.provenance, spread)

    def _share(self, cost: Cost, share: float, statics: dict[str, float]) -> Cost:
        return Cost({"latency_ms": share * cost["latency_ms"], **statics}, self.provenance)

    def _reference(self) -> Run:
        return open_run(reference_bytes(), self.threads, "the reference network")

    def _clock(self) -> float:
        return time.process_time() if self.threads == 1 else time.perf_counter()


@TARGETS.register(
    "onnxruntime-cpu", summary="this machine's CPU through ONNX Runtime, float32, measured"
)
def onnxruntime_cpu(threads: int | str = 1) -> OnnxRuntimeCpu:
    """Return the target; ``threads`` may be text, as it is when it stands in a name."""
    try:
        return OnnxRuntimeCpu(int(threads))
    except ValueError as error:
        raise BadInput(f"threads={threads} is not a positive number") from error
