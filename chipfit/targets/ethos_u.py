# SPDX-License-Identifier: Apache-2.0
"""Arm Ethos-U55, U65 and U85 through the Vela compiler: its cycle estimate is the price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from chipfit.cost.cost import Cost
from chipfit.errors import UnsupportedOp
from chipfit.graph.op import Op
from chipfit.graph.workload import Program, Workload
from chipfit.targets.base import TARGETS, LayerCost, NetworkCost, Refusal, Target, Unit
from chipfit.targets.footprint import footprint, op_weight_bytes
from chipfit.targets.tflite_file import file_weights, read_tflite
from chipfit.targets.vela import VelaResult, VelaRow, compile_tflite, rows_by_node
from chipfit.targets.vela_config import (
    VelaConfig,
    arena_cache_bytes,
    check_config,
    core_clock_hz,
    vela_version,
)
from chipfit.targets.windows import neighbour_units


@dataclass(frozen=True)
class Family:
    """Defaults of one generation.

    Args:
        macs: MAC units per cycle, one target each.
        system_config: Vela's own default.
        memory_mode: Vela's own default.
        reach: Producers and consumers, in steps, that a unit is compiled with.
        alignment: Channel multiple (see :data:`FAMILIES`).
    """

    macs: tuple[int, ...]
    system_config: str
    memory_mode: str
    reach: tuple[int, int]
    alignment: int


#: System configuration and memory mode are what Vela takes where none is given.
#:
#: Reach: summed over units, MobileNetV2, EfficientNet-Lite0, ResNet-18 and small networks come
#: within 0.5 % of the whole on U55, 0.7 % on U65 and 3 % on U85. With one producer instead of two,
#: U55-128 misses small networks by up to 11 %: the producer's own input must have the tensor format
#: that it has inside a network.
#:
#: Alignment: cycles of an expand, depthwise, project chain (28 x 28, 48 to 112 hidden channels)
#: rise in steps of 8 channels on U55 and U65, and of 16 on U85; input channels of a dense
#: convolution, in steps of 32. Widths between steps cost as much as the next step, or more.
FAMILIES = {
    "u55": Family((32, 64, 128, 256), "Ethos_U55_High_End_Embedded", "Shared_Sram", (2, 1), 8),
    "u65": Family((256, 512), "Ethos_U65_Client_Server", "Dedicated_Sram_384KB", (3, 1), 8),
    "u85": Family(
        (128, 256, 512, 1024, 2048), "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB", (4, 1), 16
    ),
}

#: Where an operator's tensors take more than this share of the SRAM that is set aside for
#: activations, the compiler decides what goes to DRAM by looking further around; so do units.
CROWDED = 0.75
CROWDED_REACH = (4, 8)


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
        self._reach = family.reach
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
        for i, node in enumerate(workload.nodes):
            if node.name not in names:
                try:
                    refused += self._fallbacks(workload.window(i, i + 1))
                except UnsupportedOp as error:
                    refused.append(Refusal(node.name, node.op.kind, error.message))
        place = {node.name: i for i, node in enumerate(workload.nodes)}
        return sorted(refused, key=lambda refusal: place[refusal.name])

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
                    self._timed(rows[node.name])
                    | {
                        "macs": node.op.macs,
                        "params": node.op.parameter_count,
                        "weight_bytes": op_weight_bytes(node.op, self.precision),
                    },
                    self.provenance,
                ),
            )
            for node in workload.nodes
        )
        values = self._whole(result) | footprint(workload, self.precision)
        return NetworkCost(Cost(values, self.provenance), layers)

    def compile_file(self, path: Path) -> VelaResult:
        """Compile a ``.tflite`` file; operators left to the CPU are in the result's ``cpu_ops``.

        Raises:
            BadInput: The file cannot be read, is no TFLite file, or is damaged.
            UnsupportedOp: Vela rejects it.
        """
        return compile_tflite(read_tflite(path), self.config)

    def cost_file(self, path: Path) -> NetworkCost:
        """Compile a ``.tflite`` file; layers are the rows of Vela's table.

        Raises:
            BadInput: The file cannot be read, is no TFLite file, or is damaged.
            UnsupportedOp: Vela rejects it, or leaves an operator to the CPU.
        """
        result = self.compile_file(path)
        self._no_fallback(result, str(path))
        values = self._whole(result) | {"macs": result.macs} | file_weights(Path(path).read_bytes())
        layers = tuple(
            LayerCost(
                row.name,
                row.original,
                Cost(self._timed([row]) | {"macs": row.macs}, self.provenance),
            )
            for row in result.rows
        )
        return NetworkCost(Cost(values, self.provenance), layers)

    def static_cost(self, workload: Workload) -> dict[str, float]:
        """Return MACs, parameters and weight bytes.

        Peak SRAM is not predicted: with the weights that the compiler stages there it lies up to
        three times above the peak of the live tensors, or below it where operators cascade.
        """
        return footprint(workload, self.precision)

    def units(self, workload: Workload) -> list[Unit]:
        """Return every operator between its neighbours."""
        return neighbour_units(workload, self._reach_of)

    def _reach_of(self, op: Op) -> tuple[int, int]:
        live_bytes = sum(math.prod(shape) for shape in (*op.inputs, op.output))
        return CROWDED_REACH if live_bytes > self._crowded_bytes else self._reach

    def cost_units(self, units: Sequence[Unit]) -> list[Cost]:
        """Compile each window and read the rows of the operator in focus.

        Raises:
            UnsupportedOp: An operator of a window cannot run on the NPU.
        """
        costs = []
        for unit in units:
            _, rows = self._compile_named(unit.workload)
            own = [row for i in unit.focus for row in rows[unit.workload.nodes[i].name]]
            costs.append(Cost(self._timed(own), self.provenance))
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

    def _timed(self, rows: Sequence[VelaRow]) -> dict[str, float]:
        cycles = sum(row.cycles for row in rows)
        return {"latency_ms": cycles / self._clock_hz * 1e3, "cycles": cycles}

    def _whole(self, result: VelaResult) -> dict[str, float]:
        return {
            "latency_ms": result.latency_ms,
            "cycles": result.cycles,
            "peak_sram_bytes": result.sram_bytes,
            "flash_bytes": result.file_bytes,
        }


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
