# SPDX-License-Identifier: Apache-2.0
"""Cortex-M microcontrollers running int8 TFLite with tflite-micro and CMSIS-NN.

Memory is measured: ``peak_sram_bytes`` is the tensor arena that the interpreter asks for, and
``flash_bytes`` the size of the model file, without the code of the runtime. Latency is modelled
from published figures (:mod:`chipfit.targets.cortex_m_figures`), so a whole cost is ``modelled``;
three measurements of a board of one's own replace the figures' level
(:mod:`chipfit.targets.cortex_m_board`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, UnsupportedOp
from chipfit.graph.memory_graph import MemoryGraph
from chipfit.graph.workload import Program, Workload
from chipfit.targets.base import (
    TARGETS,
    LayerCost,
    NetworkCost,
    Refusal,
    Roofline,
    RuntimeNode,
    Target,
    Unit,
)
from chipfit.targets.cortex_m_arena import Arena, measure_arena, tflite_micro_version
from chipfit.targets.cortex_m_board import BoardFit, fit_board
from chipfit.targets.cortex_m_figures import CORES
from chipfit.targets.cortex_m_model import Work, work_of_file
from chipfit.targets.footprint import footprint, op_weight_bytes
from chipfit.targets.tflite_file import file_weights, read_tflite
from chipfit.targets.windows import single_units

if TYPE_CHECKING:
    from chipfit.export.tflite import TFLiteFile

#: Raised whenever the model or its constants change; part of the fingerprint.
MODEL_VERSION = 2


class CortexM(Target):
    """One core at one clock.

    Args:
        core: For instance ``"cortex-m4"``.
        clock_mhz: Of the board; the figures' own board where not given.
        measurements: A CSV of whole-network latencies measured on the board, which the model is
            fitted to.

    Raises:
        BadInput: The clock is not a positive number, or the measurements cannot be used.
        MissingBackend: tflite-micro is not installed.
    """

    precision = "int8"
    file_format = "tflite"
    #: CMSIS-NN handles four channels at a time on DSP cores; Helium, sixteen.
    alignment = 4
    provenance = "modelled"
    parallel = True
    #: How each key is come by; the total bears the weakest of them.
    provenance_of = {
        "latency_ms": "modelled", "cycles": "modelled",
        "peak_sram_bytes": "measured", "flash_bytes": "measured",
    }  # fmt: skip

    def __init__(
        self, core: str, clock_mhz: float | None = None, measurements: Path | str | None = None
    ) -> None:
        self.core = CORES[core]
        self.name = core
        clock_mhz = self.core.clock_mhz if clock_mhz is None else clock_mhz
        if not math.isfinite(clock_mhz) or clock_mhz <= 0:
            raise BadInput(f"clock_mhz={clock_mhz} is not a positive number")
        self.clock_hz = clock_mhz * 1e6
        self.alignment = 16 if core in ("cortex-m55", "cortex-m85") else 4
        self._constants = {key: value.cycles for key, value in self.core.constants.items()}
        self.board: BoardFit | None = None
        if measurements is not None:
            self.board = fit_board(Path(measurements), self._constants, self.clock_hz)
        self._fingerprint = (
            f"{core} model={MODEL_VERSION} tflite-micro={tflite_micro_version()}"
            f" clock_mhz={clock_mhz:g} precision=int8{f' {self.board}' if self.board else ''}"
        )

    @property
    def fingerprint(self) -> str:
        """Core, version of the model and of tflite-micro, clock, and the fit to a board."""
        return self._fingerprint

    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators that tflite-micro has no int8 kernel for, or with no known cost."""
        from chipfit.export.tflite import tflite_refusals

        refused = [Refusal(*refusal) for refusal in tflite_refusals(workload, micro=True)]
        if not refused:
            try:
                self._run(workload)
                return []
            except UnsupportedOp:
                pass  # found below
        names = {refusal.name for refusal in refused}
        for i, node in enumerate(workload.nodes):
            if node.name not in names:
                try:
                    self._run(workload.window(i, i + 1))
                except UnsupportedOp as error:
                    refused.append(Refusal(node.name, node.op.kind, error.message))
        place = {node.name: i for i, node in enumerate(workload.nodes)}
        return sorted(refused, key=lambda refusal: place[refusal.name])

    def cost(self, network: Workload | Program) -> NetworkCost:
        """Export a whole network, load it in the interpreter and model its latency.

        Raises:
            UnsupportedOp: tflite-micro lacks an operator; the message names it and its place.
        """
        workload = network.workload if isinstance(network, Program) else network
        data, works, arena = self._checked_run(network)
        layers = tuple(
            LayerCost(
                node.name, node.op.kind,
                Cost(
                    self._timed(works[node.name]) | {
                        "macs": node.op.macs, "params": node.op.parameter_count,
                        "weight_bytes": op_weight_bytes(node.op, self.precision),
                    },
                    self.provenance,
                ),
                "mcu", self.precision,
            )
            for node in workload.nodes
        )  # fmt: skip
        every = [work for own in works.values() for work in own]
        return self._network_cost(
            every, layers, arena, len(data), footprint(workload, self.precision)
        )

    def cost_file(self, path: Path) -> NetworkCost:
        """Load an int8 ``.tflite`` file in the interpreter and model its latency.

        Raises:
            BadInput: The file cannot be read, is no TFLite file, or is damaged.
            UnsupportedOp: tflite-micro lacks an operator, or one does not run in int8.
        """
        data = read_tflite(path)
        works = work_of_file(data, str(path))
        layers = tuple(
            LayerCost(
                work.name, work.kind,
                Cost(self._timed([work]) | {"macs": work.macs}, self.provenance),
                "mcu", self.precision,
            )
            for work in works
        )  # fmt: skip
        statics = file_weights(data) | {"macs": sum(work.macs for work in works)}
        return self._network_cost(works, layers, measure_arena(data, str(path)), len(data), statics)

    def arena(self, network: Workload | Program) -> Arena:
        """Return the tensor arena of a network, activations and runtime structures apart."""
        return self._checked_run(network)[2]

    def memory_graph(self, workload: Workload) -> MemoryGraph:
        """Return the operators of the file, in its order, as the interpreter's arena sees them."""
        return self._file(workload).memory

    def work(self, network: Workload | Program) -> dict[str, float]:
        """Return the network's amounts of every kind of work, see ``cortex_m_figures.WORK``."""
        total: dict[str, float] = {}
        for own in self._export(network)[1].values():
            for work in own:
                for key, amount in work.counts.items():
                    total[key] = total.get(key, 0) + amount
        return total

    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return MACs, parameters and weight bytes.

        The arena is not predicted: it depends on how the interpreter packs tensors by lifetime.
        """
        return footprint(workload, self.precision)

    def units(self, workload: Workload) -> list[Unit]:
        """Return every operator alone: the runtime executes them one after the other."""
        return single_units(workload)

    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Model each unit's operator.

        Raises:
            UnsupportedOp: tflite-micro lacks an operator, or its cost is not modelled.
        """
        from chipfit.export.tflite import tflite_refusals

        costs = []
        for unit in units:
            if tflite_refusals(unit.workload, micro=True):
                self.check(unit.workload)
            works = self._export(unit.workload)[1]
            own = [work for i in unit.focus for work in works[unit.workload.nodes[i].name]]
            costs.append(Cost(self._timed(own), self.provenance))
        return costs

    def runtime_nodes(self, network: Workload | Program | Path) -> list[RuntimeNode]:
        """Return the operators of the file with their modelled shares."""
        if isinstance(network, Path):
            path_data = read_tflite(network)
            pairs = [("", work) for work in work_of_file(path_data, str(network))]
        else:
            works = self._checked_run(network)[1]
            pairs = [(name, work) for name, own in works.items() for work in own]
        cycles = [self._cycles(work) for _, work in pairs]
        whole = sum(cycles) or 1.0
        return [
            RuntimeNode(
                work.name, work.kind, own / whole, layer, self.precision,
                conversion=work.kind in ("TRANSPOSE", "QUANTIZE"),
            )
            for (layer, work), own in zip(pairs, cycles, strict=True)
        ]  # fmt: skip

    def roofline(self) -> Roofline:
        """Return the modelled peak: dense convolutions, and one widest load a cycle."""
        return Roofline(
            self.clock_hz / self._constants["conv_macs"],
            self.clock_hz * self.core.load_bytes_per_cycle,
            "flash and SRAM without wait states", "modelled",
        )  # fmt: skip

    def _export(self, network: Workload | Program) -> tuple[bytes, dict[str, list[Work]]]:
        workload = network.workload if isinstance(network, Program) else network
        file = self._file(network)
        owner = {tensor: node for node, own in file.tensors_of.items() for tensor in own}
        works: dict[str, list[Work]] = {node.name: [] for node in workload.nodes}
        last = workload.nodes[-1].name
        for work in work_of_file(file.data, "the network"):
            works[owner.get(work.name, last)].append(work)
        return file.data, works

    def _file(self, network: Workload | Program) -> TFLiteFile:
        """Write the file with synthetic ranges and weights, which no cost depends on."""
        from chipfit.export.tflite import synthetic_ranges, to_tflite
        from chipfit.graph.execute import synthetic_parameters

        program = network if isinstance(network, Program) else synthetic_parameters(network)
        return to_tflite(program, synthetic_ranges(program.workload))

    def _run(self, network: Workload | Program) -> tuple[bytes, dict[str, list[Work]], Arena]:
        data, works = self._export(network)
        return data, works, measure_arena(data, "the network")

    def _checked_run(
        self, network: Workload | Program
    ) -> tuple[bytes, dict[str, list[Work]], Arena]:
        """Run, and name the operators where that fails."""
        from chipfit.export.tflite import tflite_refusals

        workload = network.workload if isinstance(network, Program) else network
        if tflite_refusals(workload, micro=True):
            self.check(workload)
        try:
            return self._run(network)
        except UnsupportedOp:
            self.check(workload)
            raise

    def _cycles(self, work: Work) -> float:
        factor = self.board.factor(work) if self.board else 1.0
        return factor * work.cycles(self._constants)

    def _timed(self, works: Sequence[Work]) -> dict[str, float]:
        cycles = sum(self._cycles(work) for work in works)
        return {"latency_ms": cycles / self.clock_hz * 1e3, "cycles": cycles}

    def _network_cost(
        self, works: Sequence[Work], layers: tuple[LayerCost, ...], arena: Arena,
        file_bytes: int, statics: dict[str, float],
    ) -> NetworkCost:  # fmt: skip
        values = self._timed(works) | {
            "peak_sram_bytes": arena.total_bytes, "flash_bytes": file_bytes,
        }  # fmt: skip
        spread = {}
        if self.board:
            spread = {key: self.board.error * values[key] for key in ("latency_ms", "cycles")}
        return NetworkCost(Cost(values | statics, self.provenance, spread), layers)


def _factory(core: str, clock_mhz: float | str | None = None, measurements: str = "") -> CortexM:
    try:
        clock = None if clock_mhz is None else float(clock_mhz)
    except ValueError as error:
        raise BadInput(f"clock_mhz={clock_mhz} is not a positive number") from error
    return CortexM(core, clock, measurements or None)


for _core in CORES.values():
    TARGETS.register(
        _core.name,
        summary=f"{_core.summary}, int8: memory measured by tflite-micro, latency modelled",
    )(partial(_factory, _core.name))
