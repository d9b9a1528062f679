# SPDX-License-Identifier: Apache-2.0
"""Arm Ethos-U55, U65 and U85 through the Vela compiler: its cycle estimate is the price."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from chipfit.cost.cost import Cost
from chipfit.errors import UnsupportedOp
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
from chipfit.targets.ethos_u_family import CROWDED, FAMILIES, REACH, SMALL_BYTES, SMALL_REACH
from chipfit.targets.footprint import footprint, op_weight_bytes
from chipfit.targets.tflite_file import read_tflite
from chipfit.targets.vela import VelaResult, VelaRow, compile_tflite, rows_by_node
from chipfit.targets.vela_config import (
    VelaConfig,
    arena_cache_bytes,
    check_config,
    core_clock_hz,
    memory_speed,
    vela_version,
)
from chipfit.targets.vela_costs import file_cost, file_rows, scheduled, timed, whole
from chipfit.targets.windows import neighbour_units


class EthosU(Target):
    """One Ethos-U configuration.

    Args:
        accelerator: For instance ``"ethos-u55-128"``.
        system_config: Section of Vela's bundled ``vela.ini``; the family's default where empty.
        memory_mode: The same.

    Raises:
        UnknownName: Vela knows no such system configuration or memory mode.
        MissingBackend: Vela is not installed.
    """

    precision = "int8"
    file_format = "tflite"
    provenance = "compiled"
    parallel = True

    def __init__(self, accelerator: str, system_config: str = "", memory_mode: str = "") -> None:
        family = FAMILIES[accelerator.split("-")[1]]
        self.name = accelerator
        self.alignment = family.alignment
        self._chained = family.chained
        self.config = VelaConfig(
            accelerator, system_config or family.system_config, memory_mode or family.memory_mode
        )
        check_config(self.config)
        self._crowded_bytes = CROWDED * arena_cache_bytes(self.config)
        self._clock_hz = core_clock_hz(self.config)
        self._fingerprint = (
            f"{accelerator} vela={vela_version()} system_config={self.config.system_config}"
            f" memory_mode={self.config.memory_mode} precision={self.precision}"
        )

    @property
    def fingerprint(self) -> str:
        """Accelerator, compiler version, system configuration, memory mode and precision."""
        return self._fingerprint

    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators that cannot be exported to int8 TFLite or fall back to the CPU.

        The NPU's own constraints are Vela's to tell, so the network is compiled.
        """
        from chipfit.export.tflite import tflite_refusals

        refused = [Refusal(*refusal) for refusal in tflite_refusals(workload)]
        if not refused:
            try:
                return self._fallbacks(workload)
            except UnsupportedOp:  # Vela stopped without telling where
                pass
        names = {refusal.name for refusal in refused}
        rest = [i for i, node in enumerate(workload.nodes) if node.name not in names]
        refused += self._rest_fallbacks(workload, rest, together=bool(refused))
        place = {node.name: i for i, node in enumerate(workload.nodes)}
        return sorted(refused, key=lambda refusal: place[refusal.name])

    def _rest_fallbacks(
        self, workload: Workload, rest: Sequence[int], together: bool
    ) -> list[Refusal]:
        """Compile the operators at ``rest``, one by one where Vela stops on all ``together``."""
        if together and rest:
            try:
                return self._fallbacks(workload.part(rest))
            except UnsupportedOp:
                pass
        refused = []
        for i in rest:
            try:
                refused += self._fallbacks(workload.window(i, i + 1))
            except UnsupportedOp as error:
                refused.append(Refusal(workload.nodes[i].name, workload.nodes[i].op.kind,
                                       error.message))  # fmt: skip
        return refused

    def _fallbacks(self, workload: Workload) -> list[Refusal]:
        _, rows = self._compile(workload)
        kinds = {node.name: node.op.kind for node in workload.nodes}
        return [
            Refusal(name, kinds[name], f"Vela leaves {row.original} to the CPU")
            for name, own in rows.items()
            for row in own
            if not row.on_npu
        ]

    def cost(self, network: Workload | Program) -> NetworkCost:
        """Compile a whole network.

        Raises:
            UnsupportedOp: An operator cannot be exported, or falls back to the CPU, whose time no
                compiler knows.
        """
        workload = network.workload if isinstance(network, Program) else network
        result, rows = self._compile_named(network)
        layers = tuple(
            LayerCost(
                node.name,
                node.op.kind,
                Cost(
                    timed(rows[node.name], self._clock_hz)
                    | {
                        "macs": node.op.macs,
                        "params": node.op.parameter_count,
                        "weight_bytes": op_weight_bytes(node.op, self.precision),
                    },
                    self.provenance,
                ),
                runs_on="npu",
                precision=self.precision,
            )
            for node in workload.nodes
        )
        values = whole(result) | footprint(workload, self.precision)
        return NetworkCost(Cost(values, self.provenance), layers)

    def compile_file(self, path: Path) -> VelaResult:
        """Compile a ``.tflite`` file; operators left to the CPU are in the result's ``cpu_ops``.

        Raises:
            BadInput: The file cannot be read, is no TFLite file, or is damaged.
            UnsupportedOp: Vela rejects it.
        """
        return compile_tflite(read_tflite(path), self.config, str(path))

    def cost_file(self, path: Path) -> NetworkCost:
        """Compile a ``.tflite`` file; layers are the rows of Vela's table.

        Raises:
            BadInput: The file cannot be read, is no TFLite file, or is damaged.
            UnsupportedOp: Vela rejects it, or leaves an operator to the CPU.
        """
        data = read_tflite(path)
        result = compile_tflite(data, self.config, str(path))
        self._no_fallback(result, str(path))
        return file_cost(data, result, self._clock_hz)

    def cost_file_parts(self, path: Path) -> tuple[NetworkCost, list[Refusal]]:
        """Compile a file that may leave operators to the CPU, whose time nobody knows.

        The total then lacks latency and cycles, and only the NPU's layers have them.

        Raises:
            BadInput: The file cannot be read, is no TFLite file, or is damaged.
            UnsupportedOp: Vela rejects the file as a whole.
        """
        data = read_tflite(path)
        result = compile_tflite(data, self.config, str(path))
        left = [
            Refusal(row.name, row.original, f"Vela leaves {row.original} to the CPU")
            for row in result.rows
            if not row.on_npu
        ]
        return file_cost(data, result, self._clock_hz), left

    def runtime_nodes(self, network: Workload | Program | Path) -> list[RuntimeNode]:
        """Return Vela's own operators with their shares of the cycles.

        Those that it fused into others, at no cycles of their own, are left out.

        Raises:
            UnsupportedOp: An operator cannot be exported, or falls back to the CPU.
        """
        if isinstance(network, Path):
            data = read_tflite(network)
            result = compile_tflite(data, self.config, str(network))
            self._no_fallback(result, str(network))
            return scheduled(file_rows(data, result))
        _, rows = self._compile_named(network)
        return scheduled((row, name, self.precision) for name, own in rows.items() for row in own)

    def roofline(self) -> Roofline:
        """Return MACs per cycle times the clock, and the memories of the configuration.

        Activations are taken to be in the fast memory of the memory mode; what the compiler spills
        to DRAM only makes a layer slower than this bound.
        """
        memory, bytes_per_s = memory_speed(self.config, "const")
        fast, fast_bytes_per_s = memory_speed(self.config, "cache")
        macs_per_cycle = int(self.name.split("-")[2])
        return Roofline(
            macs_per_cycle * self._clock_hz, bytes_per_s, memory, "specified", fast_bytes_per_s,
            fast,
        )  # fmt: skip

    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return MACs, parameters and weight bytes.

        Peak SRAM is not predicted: with the weights that the compiler stages there it lies up to
        three times above the peak of the live tensors, or below it where operators cascade.
        """
        return footprint(workload, self.precision)

    def units(self, workload: Workload) -> list[Unit]:
        """Return every operator between its neighbours."""
        small = self._chained and workload.peak_activation_elements() <= SMALL_BYTES
        return neighbour_units(
            workload, SMALL_REACH if small else REACH, self._crowded_bytes, self._chained
        )

    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Compile each window and read the rows of the operator in focus.

        Raises:
            UnsupportedOp: An operator of a window cannot run on the NPU.
        """
        costs = []
        for unit in units:
            _, rows = self._compile_named(unit.workload)
            own = [row for i in unit.focus for row in rows[unit.workload.nodes[i].name]]
            costs.append(Cost(timed(own, self._clock_hz), self.provenance))
        return costs

    def _compile(self, network: Workload | Program) -> tuple[VelaResult, dict[str, list[VelaRow]]]:
        """Export with synthetic activation ranges, which no cost depends on, and compile.

        Synthetic weights do matter, as Vela compresses weights. Normal ones come closest: for
        MobileNetV2 on U55-128 their encoded size is 0.9 % and their cycles are 0.4 % below those
        of ImageNet weights, against 8 % and 3 % above with uniform ones.
        """
        from chipfit.export.tflite import synthetic_ranges, to_tflite
        from chipfit.graph.execute import synthetic_parameters

        program = network if isinstance(network, Program) else synthetic_parameters(network)
        file = to_tflite(program, synthetic_ranges(program.workload))
        result = compile_tflite(file.data, self.config)
        return result, rows_by_node(result, file.tensors_of, program.workload)

    def _compile_named(
        self, network: Workload | Program
    ) -> tuple[VelaResult, dict[str, list[VelaRow]]]:
        """Compile, and name the operators where that fails or leaves some to the CPU."""
        workload = network.workload if isinstance(network, Program) else network
        try:
            result, rows = self._compile(network)
        except UnsupportedOp:
            self.check(workload)
            raise
        if result.cpu_ops:
            self.check(workload)
        return result, rows

    def _no_fallback(self, result: VelaResult, place: str) -> None:
        if result.cpu_ops:
            raise UnsupportedOp(
                f"{self.name} leaves {len(result.cpu_ops)} operator(s) of {place} to the CPU, at"
                f" unknown cost: {', '.join(result.cpu_ops[:8])}",
                "replace them, or choose another target",
            )


def _factory(accelerator: str, system_config: str = "", memory_mode: str = "") -> EthosU:
    return EthosU(accelerator, system_config, memory_mode)


for _family, _defaults in FAMILIES.items():
    for _macs in _defaults.macs:
        _name = f"ethos-{_family}-{_macs}"
        TARGETS.register(
            _name,
            summary=f"Arm Ethos-{_family.upper()} with {_macs} MACs per cycle, int8,"
            " compiled by Vela",
        )(partial(_factory, _name))
