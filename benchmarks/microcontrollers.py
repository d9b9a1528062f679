# SPDX-License-Identifier: Apache-2.0
"""The latency model of Cortex-M cores against published whole-network latencies.

    python -m benchmarks.microcontrollers

Prints modelled and published milliseconds with the relative error, those latencies that the
constants were fitted to apart from those that they never saw; the same for single layers on
Cortex-M55, for which no whole network is published; and flash and tensor arena as measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.mlperf_tiny import ALIF_E8_LAYERS, NETWORKS, PUBLISHED
from benchmarks.output import Report, command, parser
from chipfit.graph.capture import capture
from chipfit.graph.workload import Program
from chipfit.targets.cortex_m import CortexM
from chipfit.targets.cortex_m_figures import CORES

#: The constants that are fitted to whole networks.
FITTED = ("conv_macs", "depthwise_macs", "dense_macs")


def programs() -> dict[str, Program]:
    """Return the published networks, captured."""
    return {
        name: capture(factory().eval(), torch.zeros(shape))
        for name, (factory, shape) in NETWORKS.items()
    }


def latency_rows(nets: Mapping[str, Program]) -> list[dict[str, Any]]:
    """Return one row per published latency with the model's error."""
    rows = []
    for published in PUBLISHED:
        target = CortexM(published.core, published.clock_mhz)
        for name, latency_ms in published.latency_ms.items():
            modelled_ms = target.cost(nets[name]).total["latency_ms"]
            rows.append({
                "core": published.core, "network": name, "published_ms": latency_ms,
                "modelled_ms": modelled_ms, "error_percent": 100 * (modelled_ms / latency_ms - 1),
                "fitted": published.fitted, "source": published.source,
            })  # fmt: skip
    return rows


def refitted(nets: Mapping[str, Program]) -> dict[str, dict[str, float]]:
    """Return the constants that the fitted sources give, by core."""
    from scipy.optimize import nnls

    found = {}
    for published in PUBLISHED:
        if not published.fitted:
            continue
        target = CortexM(published.core, published.clock_mhz)
        constants = {key: c.cycles for key, c in CORES[published.core].constants.items()}
        matrix, rest = [], []
        for name, latency_ms in published.latency_ms.items():
            cycles = latency_ms * published.clock_mhz * 1e3
            amounts = target.work(nets[name])
            matrix.append([amounts.get(key, 0) / cycles for key in FITTED])
            others = {key: n for key, n in amounts.items() if key not in FITTED}
            rest.append(1 - sum(constants[key] * n for key, n in others.items()) / cycles)
        solution = nnls(np.array(matrix), np.array(rest))[0]
        found[published.core] = dict(zip(FITTED, map(float, solution), strict=True))
    return found


def memory_rows(nets: Mapping[str, Program]) -> list[dict[str, Any]]:
    """Return flash and tensor arena of each network, as measured."""
    target = CortexM("cortex-m4")
    rows = []
    for name, program in nets.items():
        total, arena = target.cost(program).total, target.arena(program)
        rows.append({
            "network": name, "macs": int(total["macs"]), "flash_bytes": int(total["flash_bytes"]),
            "arena_bytes": arena.total_bytes, "head_bytes": arena.head_bytes,
            "tail_bytes": arena.tail_bytes,
        })  # fmt: skip
    return rows


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for core, fitted in dict.fromkeys((row["core"], row["fitted"]) for row in rows):
        errors = [
            abs(row["error_percent"]) for row in rows
            if (row["core"], row["fitted"]) == (core, fitted)
        ]  # fmt: skip
        found.append({
            "core": core, "latencies": "fitted" if fitted else "not fitted", "n": len(errors),
            "mean_error_percent": statistics.mean(errors), "worst_percent": max(errors),
        })  # fmt: skip
    return found


def layer_rows() -> list[dict[str, Any]]:
    """Return one row per published layer on Cortex-M55."""
    target = CortexM("cortex-m55")
    rows = []
    for c_in, c_out, kernel, stride, groups, size, cycles in ALIF_E8_LAYERS:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups).eval()
        program = capture(conv, torch.zeros(1, c_in, size, size))
        nodes = target.runtime_nodes(program)
        share = sum(node.share for node in nodes if node.kind.endswith("CONV_2D"))
        modelled = share * target.cost(program).total["cycles"]
        rows.append({
            "layer": f"{kernel}x{kernel} {c_in}>{c_out} s{stride} g{groups} at {size}",
            "published_cycles": cycles, "modelled_cycles": modelled,
            "error_percent": 100 * (modelled / cycles - 1),
        })  # fmt: skip
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and write the result files."""
    arguments = parser(__doc__ or "").parse_args(argv)
    report = Report("microcontrollers", {}, arguments.out)
    nets = programs()
    rows = latency_rows(nets)
    report.table("modelled against published latencies", rows)
    report.table(
        "by core", _summary(rows),
        "boards and runtimes of one core differ by as much; three measurements of one's own board"
        " replace the level",
    )  # fmt: skip
    report.table("single layers on Cortex-M55, all fitted", layer_rows())
    report.table("flash and tensor arena, measured", memory_rows(nets))
    report.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
