# SPDX-License-Identifier: Apache-2.0
"""Run all benchmarks, one after the other, each in a process of its own.

    python -m benchmarks.run [--run runs/demo-netadapt] [--quick]

What compares with NetAdapt needs a finished run of it, which ``python examples/demo.py --method
netadapt --run runs/demo-netadapt`` leaves behind.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.output import Report, command, parser
from chipfit.errors import BadInput

#: Smallest settings: they show that everything runs, their figures mean nothing.
QUICK = {
    "tracing": ["--nets", "tiny_mobilenet_v2@1x1x8x8", "--repeats", "1", "--cold", "0"],
    "profile_all": ["--nets", "tiny_mobilenet_v2@1x1x8x8", "--targets", "ethos-u55-128"],
    "cost_table": [
        "--nets", "tiny_mobilenet_v2@1x1x8x8", "--variants", "2", "--queries", "20",
        "--cold", "1", "--fill-units", "24", "--repeats", "1",
    ],
    "prediction_error": [
        "--targets", "ethos-u55-128", "--families", "mbconv", "--networks", "1", "--band", "0",
        "--rows", "0",
    ],
    "microcontrollers": [],
    "mcu_budgets": [
        "--data", "digits", "--width", "8", "--original-steps", "2", "--search-steps", "4",
        "--search-batch", "16", "--recovery-steps", "2", "--seeds", "1", "--store",
        "runs/mcu-budgets-quick",
    ],
    "baselines": ["--seeds", "1"],
    "collapse": ["--networks", "5", "--nets"],
    "coverage": ["--models", "resnet10t", "--targets", "analytic"],
    "ran_e_table": [
        "--targets", "ethos-u55-256", "--modes", "Sram_Only", "--nets", "RAN-e-GT", "--size", "32",
    ],
    "ran_i_fps": [
        "--targets", "onnxruntime-cpu", "--pairs", "T/T", "--rounds", "2", "--sessions", "1",
        "--size", "32",
    ],
    "ran_i_scaling": [
        "--targets", "--sizes", "T", "--size", "32", "--store", "runs/ran-i-scaling-quick",
    ],
    "mass_correlation": [
        "--data", "digits", "--steps", "2", "--masses", "light", "--depths", "1", "2", "--seeds",
        "1", "--store", "runs/mass-correlation-quick",
    ],
    "sesr_training": [
        "--nets", "sesr_m3", "--batch", "2", "--size", "16", "--rounds", "2",
    ],
    "training_free": [
        "--cells", "4", "--band", "3", "--images", "2", "--resamples", "20", "--store",
        "runs/training-free-quick",
    ],
    "nas_bench_201": [
        "--operations", "none", "nor_conv_1x1", "--evaluations", "5", "10", "--seeds", "2",
        "--predict", "2", "--evolution", "4", "2", "--population", "4", "--corner", "50", "--store",
        "runs/nas-bench-201-quick",
    ],
    "ran_e_search": [
        "--targets", "ethos-u55-128", "--spaces", "published options", "--floors", "0", "--size",
        "32", "--compilations", "4", "--patience", "4", "--sweeps", "1", "--slack", "0",
        "--store", "runs/ran-e-search-quick",
    ],
    "ran_e_exhaustive": [
        "--data", "digits", "--steps", "2", "--patterns", "2", "--repeats", "1", "--budgets",
        "--store", "runs/ran-e-exhaustive-quick",
    ],
    "search_cost": [
        "--candidates", "2", "4", "--rounds", "1", "--batch", "2", "--size", "6", "--hidden", "32",
        "--channels", "8", "--layers", "1", "--store", "runs/search-cost-quick",
    ],
    "ran_e_cifar": [
        "--data", "digits", "--steps", "2", "--seeds", "1", "--floors", "--methods",
        "--store", "runs/ran-e-cifar-quick",
    ],
    "lana_claims": [
        "--data", "digits", "--target", "analytic", "--key", "macs", "--steps", "2",
        "--distil-steps", "2", "--short-steps", "2", "--score-images", "64", "--networks", "4",
        "--randoms", "1", "--budgets", "50", "--seeds", "1", "--sizes", "6x8", "--instances", "2",
        "--store", "runs/lana-claims-quick",
    ],
    "prune_anything": ["--models", "resnet10t", "--store", "runs/prune-anything-quick"],
    "repnas_alike": [
        "--data", "digits", "--steps", "2", "--seeds", "1", "--randoms", "1", "--store",
        "runs/repnas-alike-quick",
    ],
    "search_alike": [
        "--net", "fbnet_space:size=small", "--data", "digits", "--methods", "proxylessnas",
        "--search-steps", "2", "--steps", "2", "--seeds", "1", "--random", "1", "--floor", "0.8",
        "--store", "runs/search-alike-quick",
    ],
    "padnas_ranking": [
        "--data", "digits", "--search-steps", "6", "--steps", "2", "--networks", "3", "--seeds",
        "1", "--window", "0.5", "--store", "runs/padnas-ranking-quick",
    ],
    "soft_masks": [
        "--data", "digits", "--target", "analytic", "--key", "macs", "--shares", "0.5",
        "--original-steps", "2", "--steps", "3", "--every", "1", "--seeds", "1", "--store",
        "runs/soft-masks-quick",
    ],
    "side_by_side": [
        "--nets", "tiny_mobilenet_v2", "--data", "digits", "--targets", "analytic", "--key", "macs",
        "--shares", "0.6", "--contenders", "smcp", "netadapt", "tp-taylor", "--images", "256",
        "--epochs", "0.1", "--seeds", "1", "--options", '{"netadapt": {"steps": 2}}', "--workers",
        "1", "--store", "runs/side-by-side-quick",
    ],
    "allocate_speed": [
        "--groups", "6", "--options", "5", "--seeds", "1", "--resources", "1", "2", "--limit", "5",
    ],
}  # fmt: skip
NAMES = tuple(QUICK)
NEEDS_RUN = "baselines"


def arguments_of(name: str, run: Path, quick: bool, out: Path) -> list[str]:
    """Return the arguments of one benchmark."""
    arguments = ["--out", str(out), *(QUICK[name] if quick else [])]
    if name in (NEEDS_RUN, "cost_table") and run.is_dir():
        arguments += ["--run", str(run)]
    return arguments


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run them and say how each ended; the exit code is the first that is not 0."""
    flags = parser("run all benchmarks")
    flags.add_argument("--run", type=Path, default=Path("runs/demo-netadapt"), help="NetAdapt's")
    flags.add_argument(
        "--quick", action="store_true", help="smallest settings, to see that it runs"
    )
    flags.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    given = flags.parse_args(argv)
    if NEEDS_RUN in given.only and not given.run.is_dir():
        others = " ".join(name for name in NAMES if name != NEEDS_RUN)
        raise BadInput(
            f"there is no run in {given.run}, which {NEEDS_RUN} compares with",
            "python examples/demo.py --method netadapt --run runs/demo-netadapt makes one; or"
            f" name another with --run, or --only {others}",
        )
    rows = []
    for name in given.only:
        start = time.monotonic()
        arguments = arguments_of(name, given.run, given.quick, given.out)
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments]).returncode
        rows.append({"benchmark": name, "exit code": code, "minutes": _minutes(start)})
    settings = {"run": str(given.run), "quick": given.quick}
    report = Report("run", settings, given.out)
    report.table("benchmarks that were run", rows)
    report.write()
    return next((int(row["exit code"]) for row in rows if row["exit code"]), 0)


def _minutes(start: float) -> float:
    return round((time.monotonic() - start) / 60, 2)


if __name__ == "__main__":
    sys.exit(main())
