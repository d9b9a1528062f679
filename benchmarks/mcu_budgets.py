# SPDX-License-Identifier: Apache-2.0
"""``mcu`` against uniform widths and magnitude pruning within budgets of a microcontroller.

    python -m benchmarks.mcu_budgets --store runs/mcu-budgets

A residual network that is too large for every bound is trained once. For each set of bounds and
each seed, ``mcu`` learns the widths under all bounds at once; the baselines are the largest uniform
scaling and the largest one-shot magnitude pruning within the same bounds by the same target
(Torch-Pruning's own pruner reaches no network within the smaller bounds). All are fine-tuned with
the original as teacher, the baselines for as many more images as ``mcu`` has seen while it learnt
widths. Bounds of 64 KB, 64 KB and 30 M MACs are those that uNAS (Liberis, Dudziak and Lane,
EuroMLSys 2021, arXiv 2010.14246) sets for Fashion-MNIST. Results are kept in the store, so that an
interrupted benchmark continues.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.mcu_contest import BOUNDS, MAGNITUDE, MCU, UNIFORM, Contest, slug
from benchmarks.output import Report, command, parser, spread
from chipfit.cost.budget import Budget
from chipfit.errors import BadInput
from chipfit.flow.data import open_task
from chipfit.targets import create

Row = dict[str, Any]


def table(original: Row, results: Mapping[tuple[str, str], Sequence[Row]]) -> list[Row]:
    """Return a line per bounds and method, the original first.

    Args:
        original: Its result.
        results: By bounds and method, one per seed.
    """
    lines = [_line("", original, [original], 0.0)]
    for (bounds, _), rows in results.items():
        best = spread([row["int8_test"] for row in results[bounds, MCU]])["median"]
        lines.append(_line(bounds, rows[0], rows, best))
    return lines


def _line(bounds: str, first: Row, rows: Sequence[Row], best: float) -> Row:
    int8 = spread([row["int8_test"] for row in rows])
    met = None
    if bounds:
        limits = Budget.parse(BOUNDS[bounds]).limits
        met = all(row["cost"][key] <= v for row in rows for key, v in limits.items())
    return {
        "bounds": bounds, "network": first["name"],
        "arena bytes": spread([row["cost"]["peak_sram_bytes"] for row in rows]),
        "file bytes": spread([row["cost"]["flash_bytes"] for row in rows]),
        "MACs": spread([row["cost"]["macs"] for row in rows]),
        "latency_ms": spread([row["cost"]["latency_ms"] for row in rows]),
        "within": met, "images": first["before"] + first["images"],
        "test": spread([row["test"] for row in rows]), "int8 test": int8,
        "int8 - mcu": int8["median"] - best if bounds else None, "made by": first["how"],
    }  # fmt: skip


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Make what is missing in the store, print the table and write the result files."""
    flags = parser("mcu against uniform widths and magnitude pruning on a microcontroller")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--target", default="cortex-m4")
    flags.add_argument("--width", type=int, default=32, help="of the original's first block")
    flags.add_argument("--bounds", nargs="+", choices=list(BOUNDS), default=list(BOUNDS))
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--original-steps", type=int, default=500)
    flags.add_argument("--search-steps", type=int, default=240)
    flags.add_argument("--search-batch", type=int, default=64)
    flags.add_argument("--recovery-steps", type=int, default=240)
    flags.add_argument("--store", type=Path, default=Path("runs/mcu-budgets"))
    given = flags.parse_args(argv)
    if min(given.seeds, given.original_steps, given.search_steps, given.recovery_steps) < 1:
        raise BadInput("seeds and steps are 1 or more")
    names = ("data", "target", "width", "original_steps", "search_steps", "search_batch",
             "recovery_steps")  # fmt: skip
    settings = {name: getattr(given, name) for name in names}
    store = given.store / slug("-".join(str(v) for v in settings.values()))
    task = open_task(given.data, None)
    contest = Contest(task, create(given.target), store, settings)
    original = contest.original_row()
    results = {
        (bounds, name): [contest.finished(bounds, name, seed) for seed in range(given.seeds)]
        for bounds in given.bounds
        for name in (MCU, UNIFORM, MAGNITUDE)
    }
    report = Report("mcu_budgets", {**settings, "seeds": given.seeds}, given.out)
    report.table(
        f"{given.data} on {given.target}, {given.seeds} seeds", table(original, results),
        "median (min..max) over seeds; arena and file are those of the fine-tuned int8 files, "
        "measured by tflite-micro on this machine, whose pointers are wider than a "
        "microcontroller's; accuracy is that of the same files in the interpreter. Images: all "
        "that the weights were trained on since the original. Widths are mcu's of the first seed.",
    )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
