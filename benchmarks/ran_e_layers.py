# SPDX-License-Identifier: Apache-2.0
"""Where the cycles of a network go on an Ethos-U: by kind of layer, and by what they wait for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from benchmarks.variants import named_network
from chipfit.errors import ChipfitError
from chipfit.export.tflite import synthetic_ranges, to_tflite
from chipfit.flow.network import load_network
from chipfit.graph.capture import trace
from chipfit.graph.execute import synthetic_parameters
from chipfit.graph.workload import Node, Workload
from chipfit.targets.ethos_u import EthosU
from chipfit.targets.vela import MEMORIES, VelaResult, VelaRow, compile_tflite, rows_by_node

#: Kinds of layers, in the order of tables.
KINDS = (
    "stem", "dense convolution", "depthwise", "pointwise", "unfolded batch norm", "addition",
    "pooling", "classifier",
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A network as an int8 file.

    Weights are normal, drawn by the network's structure: Vela compresses weights, so networks that
    are compared must have weights of one distribution.

    Args:
        workload: Its operators.
        data: The TFLite file.
        tensors_of: The tensors that each operator writes, by its name.
    """

    workload: Workload
    data: bytes
    tensors_of: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, text: str) -> Exported:
        """Export the network that ``text`` names, as ``NAME`` or ``NAME@1x3x224x224``."""
        name, shape = named_network(text)
        loaded = load_network(name, input_shape=shape)
        workload = trace(loaded.net, loaded.example())
        file = to_tflite(synthetic_parameters(workload), synthetic_ranges(workload))
        tensors = {node: tuple(names) for node, names in file.tensors_of.items()}
        return cls(workload, file.data, tensors)

    def compiled_for(self, target: EthosU) -> Compiled:
        """Return what Vela makes of it.

        Raises:
            ChipfitError: Vela leaves something to the CPU, or its rows do not add up to its total.
        """
        result = compile_tflite(self.data, target.config)
        rows = rows_by_node(result, self.tensors_of, self.workload)
        charged = sum(row.cycles for own in rows.values() for row in own)
        if result.cpu_ops or charged != result.cycles:
            raise ChipfitError(
                f"{target.fingerprint}: {charged} of {result.cycles} cycles belong to layers;"
                f" left to the CPU: {', '.join(result.cpu_ops) or 'nothing'}"
            )
        return Compiled(target, self.workload, result, rows)


@dataclass(frozen=True)
class Compiled:
    """A network compiled for one configuration, with Vela's rows by operator."""

    target: EthosU
    workload: Workload
    result: VelaResult
    rows: Mapping[str, list[VelaRow]]

    @property
    def macs_per_cycle(self) -> int:
        """Of the accelerator, all units busy."""
        return int(self.target.name.rpartition("-")[2])

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Kind of every operator by its name."""
        first = next(node for node in self.workload.nodes if node.op.kind == "conv2d")
        return {
            node.name: "stem" if node is first else kind_of(node) for node in self.workload.nodes
        }

    def rows_of(self, kind: str) -> list[VelaRow]:
        """Return the rows of all operators of one kind."""
        return [row for name in self.rows if self.kinds[name] == kind for row in self.rows[name]]

    def all_rows(self) -> list[VelaRow]:
        """Return all rows."""
        return [row for own in self.rows.values() for row in own]

    def utilisation(self, rows: Iterable[VelaRow]) -> float | None:
        """Return the share of the MAC units that work while the NPU does; ``None`` without MACs."""
        rows = [row for row in rows if row.macs]
        busy = sum(row.npu_cycles for row in rows)
        return sum(row.macs for row in rows) / (busy * self.macs_per_cycle) if busy else None

    def cycles_per_output(self, node: Node) -> float:
        """Return the NPU's cycles for one value of an operator's output."""
        return sum(row.npu_cycles for row in self.rows[node.name]) / math.prod(node.op.output)


def kind_of(node: Node) -> str:
    """Return the kind of an operator by what it does, whatever its place.

    Raises:
        ChipfitError: It is none of :data:`KINDS`.
    """
    op = node.op
    if op.depthwise:
        return "depthwise"
    if op.kind == "conv2d":
        return "pointwise" if op["kernel"] == (1, 1) else "dense convolution"
    known = {
        "batch_norm": "unfolded batch norm", "add": "addition", "mean": "pooling",
        "max_pool2d": "pooling", "linear": "classifier", "reshape": "classifier",
    }  # fmt: skip
    if op.kind not in known:
        raise ChipfitError(f"{node.name}: no kind of layer for {op.kind}")
    return known[op.kind]


def waiting(rows: Iterable[VelaRow]) -> dict[str, int]:
    """Return the cycles beyond the NPU's own, by the memory that was waited for."""
    found = dict.fromkeys(MEMORIES, 0)
    for row in rows:
        if row.bound_by != "NPU":
            found[row.bound_by] += row.cycles - row.npu_cycles
    return found
