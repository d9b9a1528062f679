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
from dataclasses import dataclass
from pathlib import Path

from chipfit.errors import ChipfitError, UnsupportedOp
from chipfit.graph.workload import Workload
from chipfit.targets.vela_config import CONFIG_FILE, VelaConfig, vela_version

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
    """

    name: str
    operator: str
    original: str
    cycles: int
    npu_cycles: int
    macs: int
    on_npu: bool


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


def compile_tflite(data: bytes, config: VelaConfig) -> VelaResult:
    """Compile a ``.tflite`` file's bytes.

    Raises:
        UnsupportedOp: Vela rejects the network; its message is kept.
        ChipfitError: Vela fails otherwise.
        MissingBackend: Vela is not installed.
    """
    vela_version()
    from ethosu.vela import vela
    from ethosu.vela.errors import VelaError

    with tempfile.TemporaryDirectory(prefix="chipfit-vela-") as folder:
        source = Path(folder) / "net.tflite"
        source.write_bytes(data)
        arguments = [
            str(source), "--output-dir", folder,
            "--accelerator-config", config.accelerator, "--config", CONFIG_FILE,
            "--system-config", config.system_config, "--memory-mode", config.memory_mode,
            "--verbose-performance", "--show-cpu-operations",
        ]  # fmt: skip
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
        return _read(Path(folder), "".join(log))


def rows_by_node(
    result: VelaResult, tensors_of: Mapping[str, Sequence[str]], workload: Workload
) -> dict[str, list[VelaRow]]:
    """Assign every row to the node that wrote its tensor.

    Vela names rows after tensors, with a suffix for the parts that it splits an operator into.
    A copy into faster memory, which has no name of the network's, is charged to what follows it.

    Raises:
        ChipfitError: A row belongs to no node: its cost would be lost.
    """
    owner = {tensor: node for node, tensors in tensors_of.items() for tensor in tensors}
    found: dict[str, list[VelaRow]] = {node: [] for node in tensors_of}
    copies: list[VelaRow] = []
    for row in result.rows:
        name = row.name
        while name not in owner and "_" in name:
            name = name.rpartition("_")[0]
        if name in owner:
            found[owner[name]] += [*copies, row]
            copies = []
        elif row.operator == "MemoryCopy":
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
