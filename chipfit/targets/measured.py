# SPDX-License-Identifier: Apache-2.0
"""``MeasuredTarget``: what all targets share whose figures are measured on this machine.

Every measurement is a ratio to one reference network that runs in between (see
:mod:`chipfit.targets.timing`). Milliseconds are that ratio times the reference's own latency, which
is measured **once per cost table** and stored there. All figures of a table are therefore in one
currency: they compare with each other although the machine's speed drifts, and their absolute level
is that of the moment when the table was started.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.graph.workload import Program, Workload
from chipfit.targets.base import NetworkCost, RuntimeNode, Target, Unit
from chipfit.targets.footprint import footprint
from chipfit.targets.measured_layers import layer_costs
from chipfit.targets.measured_roofline import measure_roofline
from chipfit.targets.roofline import Roofline
from chipfit.targets.timing import (
    CPU_TIME,
    WALL_TIME,
    Protocol,
    Ratio,
    Run,
    Sampler,
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


@dataclass(frozen=True)
class Subject:
    """A network in the form that a runtime opens.

    Args:
        content: What the runtime takes: the bytes of a file, or a module.
        statics: Figures that need no measurement.
        workload: The operators, where they are known.
        place: What it is, for messages.
    """

    content: Any
    statics: Mapping[str, float]
    workload: Workload | None
    place: str


class MeasuredTarget(Target):
    """A device that is timed here; a subclass says how a network becomes something that runs.

    Args:
        precision: Of weights and activations.
        threads: Of the runtime. With one, times are CPU times; with more they are wall-clock
            times, which other processes disturb.
        protocol: Effort of a measurement.
    """

    provenance = "measured"
    parallel = False
    #: What :attr:`chipfit.targets.layer.LayerCost.runs_on` says of its layers.
    runs_on = "cpu"
    #: Values of the option ``precision``.
    precisions: tuple[str, ...] = ("float32",)
    #: Where weights come from, for the roofline.
    memory = "main memory"
    #: Size of the networks that the roofline is measured with: channels of a convolution.
    roofline_side = 256

    def __init__(self, precision: str, threads: int = 1, protocol: Protocol | None = None) -> None:
        self.precision = precision
        self.threads = threads
        self.protocol = protocol or Protocol()
        self._reference_ms: float | None = None
        self._call_ms: float | None = None
        self._roofline: Roofline | None = None

    # What a subclass says.

    @abstractmethod
    def _prepare(self, network: Workload | Program | Path) -> Subject:
        """Return ``network`` in the form that the runtime opens; done once per measurement."""

    @abstractmethod
    def _open(self, subject: Subject) -> Run:
        """Return a fresh instance that runs ``subject`` once per call, on fixed inputs."""

    @abstractmethod
    def _reference(self) -> Subject:
        """Return the network that all others are timed against: a few milliseconds of work."""

    @abstractmethod
    def _empty(self) -> Subject:
        """Return a network that does next to nothing: its time is the overhead of a call."""

    @abstractmethod
    def _nodes(self, subject: Subject) -> list[RuntimeNode]:
        """Return the operators that the runtime executes, with their shares of the time."""

    @abstractmethod
    def in_precision(self, precision: str) -> MeasuredTarget:
        """Return the same device, runtime and protocol at another of :attr:`precisions`."""

    @property
    def sampler(self) -> Sampler:
        """What takes the time of runs on this device."""
        return CPU_TIME if self.threads == 1 else WALL_TIME

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Hold the settings of this process that a measurement needs."""
        yield

    # What all of them do.

    def makers(self, networks: Sequence[Workload | Program | Path]) -> list[Callable[[], Run]]:
        """Return what makes fresh instances of ``networks``, for a session of one's own.

        Raises:
            UnsupportedOp: An operator cannot run.
        """
        return [partial(self._open, subject) for subject in self._subjects(networks)]

    @property
    def reference_ms(self) -> float:
        """Latency of the reference network that all figures are multiplied with."""
        if self._reference_ms is None:
            with self.settings():
                self._reference_ms = absolute_ms(self._run_reference, self.protocol, self.sampler)
        return self._reference_ms

    @property
    def call_ms(self) -> float:
        """Overhead of one call, which a network pays once and every unit on its own."""
        if self._call_ms is None:
            self._call_ms = self._measure([self._empty()])[0]["latency_ms"]
        return self._call_ms

    def fixed_cost(self) -> dict[str, float]:
        """Return the overhead of the one call that runs a network."""
        return {"latency_ms": self.call_ms}

    def anchors(self, stored: Mapping[str, float]) -> dict[str, float]:
        """Adopt the table's reference latency, or measure it where the table has none."""
        if REFERENCE_MS in stored and CALL_MS in stored:
            self._reference_ms, self._call_ms = stored[REFERENCE_MS], stored[CALL_MS]
        return {REFERENCE_MS: self.reference_ms, CALL_MS: self.call_ms}

    def cost(self, network: Workload | Program) -> NetworkCost:
        """Measure one network; to compare several, use :meth:`cost_many`.

        Raises:
            UnsupportedOp: An operator cannot run.
        """
        return self.cost_many([network])[0]

    def cost_file(self, path: Path) -> NetworkCost:
        """Measure a file of :attr:`file_format`.

        Raises:
            BadInput: The file cannot be read, or the target runs no files.
            UnsupportedOp: The runtime rejects it.
        """
        return self.cost_many([path])[0]

    def cost_many(self, networks: Sequence[Workload | Program | Path]) -> list[NetworkCost]:
        """Measure networks interleaved in one process, so that they compare fairly."""
        subjects = self._subjects(networks)
        totals = [
            Cost({**cost.values, **subject.statics}, self.provenance, cost.spread)
            for subject, cost in zip(subjects, self._measure(subjects), strict=True)
        ]
        return [
            NetworkCost(total, layer_costs(subject.workload, total, nodes, self))
            for subject, total in zip(subjects, totals, strict=True)
            for nodes in [self._profiled(subject)]
        ]

    def runtime_nodes(self, network: Workload | Program | Path) -> list[RuntimeNode]:
        """Return the operators that the runtime really executes, by its own profiler."""
        return self._profiled(self._subjects([network])[0])

    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return MACs, parameters and weight bytes; the runtime's memory is not predicted."""
        return footprint(workload, self.precision)

    def units(self, workload: Workload) -> list[Unit]:
        """Cut where one activation is live, into blocks of at least three operators."""
        return block_units(workload, BLOCK_OPERATORS)

    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Measure blocks, interleaved, without the overhead of the call."""
        costs = self._measure(self._subjects([unit.workload for unit in units]))
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
        with self.settings():
            return same_against_same(
                self._run_reference, self._run_reference, self.protocol, self.sampler
            )

    def roofline(self) -> Roofline:
        """Return the peaks that the runtime reaches here; measured once, kept in memory."""
        if self._roofline is None:
            self._roofline = measure_roofline(self)
        return self._roofline

    def _subjects(self, networks: Sequence[Workload | Program | Path]) -> list[Subject]:
        for network in networks:
            if not isinstance(network, Path):
                self.check(network.workload if isinstance(network, Program) else network)
        return [self._prepare(network) for network in networks]

    def _profiled(self, subject: Subject) -> list[RuntimeNode]:
        with self.settings():
            return self._nodes(subject)

    def _measure(self, subjects: Sequence[Subject]) -> list[Cost]:
        makers = [partial(self._open, subject) for subject in subjects]
        with self.settings():
            ratios = paired_ratios(makers, self._run_reference, self.protocol, self.sampler)
        return [self._cost(ratio) for ratio in ratios]

    def _cost(self, ratio: Ratio) -> Cost:
        latency = {"latency_ms": ratio.value * self.reference_ms}
        spread = {"latency_ms": ratio.half_width * self.reference_ms}
        return Cost(latency, self.provenance, spread)

    def _run_reference(self) -> Run:
        return self._open(self._reference())
