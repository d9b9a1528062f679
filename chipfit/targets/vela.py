# SPDX-License-Identifier: Apache-2.0
"""Running the Vela compiler in this process and reading what it reports."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chipfit.errors import BadInput, ChipfitError, UnsupportedOp
from chipfit.graph.workload import Workload
from chipfit.targets.isolated import Isolated
from chipfit.targets.vela_config import CONFIG_FILE, VelaConfig, vela_version

#: Memories by the column of Vela's table that holds their access cycles.
MEMORIES = {
    "SRAM": "SRAM AC", "DRAM": "DRAM AC", "on-chip flash": "OnFlash AC",
    "off-chip flash": "OffFlash AC",
}  # fmt: skip

#: Tensors that an exported operator pads into, and the operators in the file that pad.
PADDED, PADDING = ":padded", ("Pad", "PadV2", "MirrorPad")

_LOCK = threading.Lock()  # file descriptors 1 and 2 belong to the whole process


@dataclass(frozen=True)
class VelaRow:
    """One row of Vela's performance table.

    Args:
        name: The tensor that the operation writes.
        operator: Vela's own operator; ``original`` is the one in the file.
        original: The operator in the file.
        cycles: Cycles charged, memory included; 0 for what is fused into another row.
        npu_cycles: Cycles of the arithmetic alone.
        macs: Multiply-accumulates, padding not included.
        on_npu: Whether it runs on the NPU; otherwise it falls back to the CPU at unknown cost.
        access_cycles: Cycles that each memory is busy with the operation, by the keys of
            :data:`MEMORIES`; they overlap with each other and with the arithmetic.
    """

    name: str
    operator: str
    original: str
    cycles: int
    npu_cycles: int
    macs: int
    on_npu: bool
    access_cycles: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def bound_by(self) -> str:
        """The memory that is busy for longer than the arithmetic, or ``"NPU"``."""
        slowest = max(self.access_cycles, key=lambda name: self.access_cycles[name], default="NPU")
        return slowest if self.access_cycles.get(slowest, 0) > self.npu_cycles else "NPU"


@dataclass(frozen=True)
class VelaResult:
    """A compiled file.

    Args:
        latency_ms: Vela's estimate for the NPU's part, at the clock of the system configuration.
        cycles: The same in cycles.
        macs: Multiply-accumulates on the NPU.
        sram_bytes: Peak use of SRAM.
        dram_bytes: Peak use of DRAM, weights included where they lie there.
        encoded_weight_bytes: Weights after Vela's compression.
        file_bytes: Size of the compiled file.
        rows: Vela's table.
        log: What Vela printed.
    """

    latency_ms: float
    cycles: int
    macs: int
    sram_bytes: int
    dram_bytes: int
    encoded_weight_bytes: int
    file_bytes: int
    rows: tuple[VelaRow, ...]
    log: str

    @property
    def npu_ops(self) -> list[str]:
        """Names of the operators that run on the NPU."""
        return [row.name for row in self.rows if row.on_npu]

    @property
    def cpu_ops(self) -> list[str]:
        """``"name (OPERATOR)"`` of every operator that falls back to the CPU."""
        return [f"{row.name} ({row.original})" for row in self.rows if not row.on_npu]


def compile_tflite(data: bytes, config: VelaConfig, place: str = "") -> VelaResult:
    """Compile a ``.tflite`` file's bytes.

    Args:
        data: The file.
        config: What for.
        place: What the file is, where chipfit did not write it. Such a file is compiled in a
            process of its own, since a damaged one can end the compiler's.

    Raises:
        UnsupportedOp: Vela rejects the network; its message is kept.
        BadInput: The file at ``place`` ends the compiler's process, or stops it.
        ChipfitError: Vela fails otherwise.
        MissingBackend: Vela is not installed.
    """
    vela_version()
    with tempfile.TemporaryDirectory(prefix="chipfit-vela-") as folder:
        source = Path(folder) / "net.tflite"
        source.write_bytes(data)
        arguments = [
            str(source), "--output-dir", folder,
            "--accelerator-config", config.accelerator, "--config", CONFIG_FILE,
            "--system-config", config.system_config, "--memory-mode", config.memory_mode,
            "--verbose-performance", "--show-cpu-operations",
        ]  # fmt: skip
        log = _compile_apart(arguments, config, place) if place else _compile(arguments, config)
        return _read(Path(folder), log)


#: Compiles the files of users.
_COMPILER = Isolated("vela")


def _compile_apart(arguments: list[str], config: VelaConfig, place: str) -> str:
    """Run Vela in another process and return what it printed."""
    reply = _COMPILER.ask({"arguments": arguments}, b"", place)
    log = str(reply["log"])
    if reply.get("code", 1):
        error, kind = str(reply.get("error", "")), reply.get("type")
        if kind == "VelaError" or "could not run on NPU" in error:
            raise UnsupportedOp(f"Vela rejects {place}: {error}")
        if kind in (None, "SystemExit"):
            raise ChipfitError(
                f"Vela failed on {place} for {config.accelerator}: {_tail(log) or error}"
            )
        # Anything else is a reader that trips over what it did not expect.
        raise BadInput(f"Vela cannot compile {place}: {kind}: {error}", "write the file again")
    return log


def _compile(arguments: list[str], config: VelaConfig) -> str:
    """Run Vela in this process and return what it printed."""
    from ethosu.vela import vela
    from ethosu.vela.errors import VelaError

    log: list[str] = []
    try:
        with _captured(log):
            code = vela.main(arguments)
    except VelaError as error:
        raise UnsupportedOp(f"Vela rejects the network: {error.data}") from error
    except (Exception, SystemExit) as error:
        if "could not run on NPU" in str(error):
            raise UnsupportedOp(f"Vela rejects the network: {error}") from error
        detail = _tail("".join(log)) or str(error) or repr(error)
        raise ChipfitError(f"Vela failed on {config.accelerator}: {detail}") from error
    if code:
        raise ChipfitError(f"Vela failed on {config.accelerator}: {_tail(''.join(log))}")
    return "".join(log)


def rows_by_node(
    result: VelaResult, tensors_of: Mapping[str, Sequence[str]], workload: Workload
) -> dict[str, list[VelaRow]]:
    """Assign every row to the node that wrote its tensor.

    Vela names rows after tensors, with a suffix for the parts that it splits an operator into.
    A copy into faster memory, and a step that Vela takes an operator apart into and numbers, have
    no name of the network's: they are charged to what follows. A transposition that Vela puts
    before an operator is named after a tensor that nothing writes any more: its reader pays.
    An operator that Vela lets write into the padded input of the next one keeps its own cost.

    Raises:
        ChipfitError: A row belongs to no node: its cost would be lost.
    """
    makers = {node.name: node.inputs[0] for node in workload.nodes if node.inputs}
    owner = {tensor: node for node, tensors in tensors_of.items() for tensor in tensors}
    for reader in workload.nodes:
        for tensor in reader.inputs if reader.name in tensors_of else ():
            owner.setdefault(tensor, reader.name)
    found: dict[str, list[VelaRow]] = {node: [] for node in tensors_of}
    copies: list[VelaRow] = []
    for row in result.rows:
        name = row.name
        while name not in owner and ("_" in name or "/" in name):
            name = name[: max(name.rfind("_"), name.rfind("/"))]
        if name in owner:
            node = owner[name]
            if name == f"{node}{PADDED}" and row.original not in PADDING and makers[node] in found:
                node = makers[node]
            found[node] += [*copies, row]
            copies = []
        elif row.operator == "MemoryCopy" or row.name.startswith("#"):
            copies.append(row)
        elif row.cycles:
            raise ChipfitError(f"Vela's row {row.name} ({row.operator}) belongs to no operator")
    if copies:
        found[workload.nodes[-1].name] += copies
    return found


def _read(folder: Path, log: str) -> VelaResult:
    summary = _only(folder, "*_summary_*.csv")[0]
    rows = tuple(
        VelaRow(
            name=row["Name"],
            operator=row["NNG Operator"],
            original=row["Original Operator"],
            cycles=int(row["Op Cycles"]),
            npu_cycles=int(row["NPU"]),
            macs=int(row["MAC Count"]),
            on_npu=row["Target"] == "NPU",
            access_cycles={name: int(row[column]) for name, column in MEMORIES.items()},
        )
        for row in _only(folder, "*per-layer*.csv")
    )
    return VelaResult(
        latency_ms=float(summary["inference_time"]) * 1e3,
        cycles=round(float(summary["cycles_total"])),
        macs=int(summary["nn_macs"]),
        sram_bytes=round(float(summary["sram_memory_used"]) * 1024),
        dram_bytes=round(float(summary["dram_memory_used"]) * 1024),
        encoded_weight_bytes=int(summary["total_npu_encoded_weights"]),
        file_bytes=(folder / "net_vela.tflite").stat().st_size,
        rows=rows,
        log=log,
    )


def _only(folder: Path, pattern: str) -> list[dict[str, str]]:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise ChipfitError(
            f"Vela {vela_version()} wrote {len(found)} files {pattern}, one was expected",
            "chipfit reads the tables of Vela 5.2",
        )
    with found[0].open(newline="") as file:
        return list(csv.DictReader(file))


def _tail(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return " / ".join((errors or lines)[-3:])


@contextlib.contextmanager
def _captured(log: list[str]) -> Iterator[None]:
    """Divert what Python and native code print; append it to ``log``."""
    with _LOCK, tempfile.TemporaryFile() as file:
        _flush()
        kept = [os.dup(1), os.dup(2)]
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            # Streams that are not the descriptors (a notebook's, a test runner's) are diverted too.
            with (
                open(file.fileno(), "w", closefd=False, errors="replace") as stream,
                contextlib.redirect_stdout(stream),
                contextlib.redirect_stderr(stream),
            ):
                yield
        finally:
            _flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            log.append(file.read().decode(errors="replace"))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            stream.flush()
