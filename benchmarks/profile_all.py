# SPDX-License-Identifier: Apache-2.0
"""``profile`` on every Ethos-U, checked against Vela's own command line on the same file.

    python -m benchmarks.profile_all

Prints MACs, cycles, latency and SRAM of each network on each target, the cycles in the summary
that the ``vela`` command writes, and the difference, which must be zero. Exits with 4 otherwise.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.output import Report, command, parser
from benchmarks.variants import named_network
from chipfit.cli.console import Terminal
from chipfit.errors import ChipfitError, MissingBackend, UnknownName
from chipfit.export.tflite import synthetic_ranges, to_tflite
from chipfit.flow.network import load_network
from chipfit.flow.profile import profile
from chipfit.graph.capture import capture
from chipfit.targets import TARGETS
from chipfit.targets.ethos_u import EthosU

#: MACs in millions of the published networks, with the input they hold for.
PUBLISHED_MMACS = {
    "mobilenet_v2@1x3x224x224": 300.8,
    "efficientnet_lite0@1x3x224x224": 385.2,
}
DISAGREES = 4


def vela_command() -> str:
    """Return the path of the ``vela`` command that belongs to this Python.

    Raises:
        MissingBackend: There is none.
    """
    beside = Path(sys.executable).with_name("vela")
    found = str(beside) if beside.is_file() else shutil.which("vela")
    if found is None:
        raise MissingBackend("the vela command is not there", "pip install 'chipfit[ethos-u]'")
    return found


def vela_summary(file: Path, target: EthosU, folder: Path) -> dict[str, str]:
    """Return the summary that Vela's command line writes for a file.

    Raises:
        ChipfitError: The command fails, or its summary is not where it should be.
    """
    config = target.config
    done = subprocess.run(
        [
            vela_command(), str(file), "--output-dir", str(folder),
            "--accelerator-config", config.accelerator, "--config", "Arm/vela.ini",
            "--system-config", config.system_config, "--memory-mode", config.memory_mode,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ChipfitError(f"vela failed on {config.accelerator}: {done.stderr.strip()[-300:]}")
    found = list(folder.glob("*_summary_*.csv"))
    if len(found) != 1:
        raise ChipfitError(f"vela wrote {len(found)} summaries for {config.accelerator}, not one")
    with found[0].open(newline="") as lines:
        return next(csv.DictReader(lines))


def row_of(text: str, target: EthosU, data: bytes) -> dict[str, Any]:
    """Return what ``profile`` and Vela's command line say of one network on one target."""
    name, shape = named_network(text)
    start = time.perf_counter()
    total = profile(name, target, shape).cost.total
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="chipfit-bench-") as place:
        file = Path(place) / "net.tflite"
        file.write_bytes(data)
        start = time.perf_counter()
        summary = vela_summary(file, target, Path(place) / "out")
        vela_seconds = time.perf_counter() - start
    theirs = round(float(summary["cycles_total"]))
    return {
        "network": text, "target": target.name, "M MACs": total["macs"] / 1e6,
        "M MACs (vela)": int(summary["nn_macs"]) / 1e6, "cycles": round(total["cycles"]),
        "cycles (vela)": theirs, "difference": round(total["cycles"]) - theirs,
        "latency ms": total["latency_ms"],
        "ms (vela)": float(summary["inference_time"]) * 1e3,
        "SRAM KiB": total["peak_sram_bytes"] / 1024,
        "SRAM KiB (vela)": float(summary["sram_memory_used"]),
        "profile s": seconds, "vela command s": vela_seconds,
    }  # fmt: skip


def disagreements(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what differs from Vela's own figures, or from the published MACs."""
    found = []
    for row in rows:
        place = f"{row['network']} on {row['target']}"
        if row["difference"]:
            found.append(f"{place}: {row['cycles']} cycles, Vela says {row['cycles (vela)']}")
        published = PUBLISHED_MMACS.get(row["network"])
        if published is not None and round(row["M MACs"], 1) != published:
            found.append(f"{place}: {row['M MACs']:.2f} M MACs, published {published}")
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Profile everything and compare."""
    flags = parser("profile against Vela's own command line")
    every = [entry.name for entry in TARGETS if entry.name.startswith("ethos-u")]
    flags.add_argument("--targets", nargs="+", default=every)
    flags.add_argument("--nets", nargs="+", default=list(PUBLISHED_MMACS))
    given = flags.parse_args(argv)
    for name in given.targets:
        if name not in every:
            raise UnknownName("Ethos-U target", name, every)
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    report, terminal = Report("profile_all", settings, given.out), Terminal()
    rows = []
    for text in given.nets:
        name, shape = named_network(text)
        loaded = load_network(name, input_shape=shape)
        program = capture(loaded.net, loaded.example())
        data = to_tflite(program, synthetic_ranges(program.workload)).data
        for target_name in given.targets:
            terminal.progress(f"{text} on {target_name}")
            rows.append(row_of(text, EthosU(target_name), data))
    wrong = disagreements(rows)
    report.table(
        "profile, and Vela's command line on the same file", rows,
        "; ".join(wrong) or "cycles agree everywhere, and MACs with the published ones",
    )  # fmt: skip
    report.write()
    return DISAGREES if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
