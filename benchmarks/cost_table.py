# SPDX-License-Identifier: Apache-2.0
"""The cost table: how well it predicts whole networks, how fast it answers, how fast it fills.

    python -m benchmarks.cost_table --run runs/demo --variants 20

Predictions are compared with whole-network compilation (or measurement), beside plainer predictors;
a query with compiling the network, and the rate of filling with one worker and with two.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.finished import FinishedRun
from benchmarks.judging import Judged, accuracy_rows, judge_run, judge_variants
from benchmarks.output import Report, command, parser, percentile, spread
from benchmarks.variants import unseen
from chipfit.cli.console import Terminal
from chipfit.cost.fill import PARALLEL_FROM
from chipfit.cost.predict import predict_total
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.graph.workload import Workload
from chipfit.targets import Target, Unit, create
from chipfit.targets.windows import op_key
from chipfit.workers import WorkerPool

#: What a query of a filled table should stay below.
QUERY_LIMIT_MS = 1.0


def query_row(judged: Judged, target: Target, path: Path, queries: int, colds: int) -> dict:
    """Time whole-network queries of a filled table, warm and in fresh processes."""
    times = []
    with CostTable(path) as table:
        for workload in judged.workloads:
            predict_total(workload, target, table)
        for i in range(queries):
            # New objects, as a search makes them: only operators were seen before.
            workload = replace(judged.workloads[i % len(judged.workloads)])
            start = time.perf_counter()
            predict_total(workload, target, table)
            times.append((time.perf_counter() - start) * 1e3)
    cold = []
    for i in range(colds):
        workload = unseen(judged.workloads[i % len(judged.workloads)])
        with WorkerPool(1, (target, path)) as pool:
            cold += [result for _, result in pool.map(cold_query_ms, [workload])]
    whole_ms = statistics.median(judged.whole_s) * 1e3
    median = statistics.median(times)
    return {
        "networks": judged.name, "operators": len(judged.workloads[0]), "queries": len(times),
        "fastest ms": min(times), "median ms": median, "p95 ms": percentile(times, 95),
        f"below {QUERY_LIMIT_MS:g} ms": percentile(times, 95) < QUERY_LIMIT_MS,
        "cold process ms": spread(cold) if cold else None, "whole network ms": whole_ms,
        "whole / query": whole_ms / median,
    }  # fmt: skip


def cold_query_ms(setup: tuple[Target, Path], workload: Workload) -> float:
    """Time one query by a process that has just opened the table, opening included."""
    target, path = setup
    op_key.cache_clear()
    start = time.perf_counter()
    with CostTable(path) as table:
        predict_total(workload, target, table)
    return (time.perf_counter() - start) * 1e3


def fill_rows(
    units: Sequence[Unit], target: Target, workers: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    """Time the filling of an empty table, the numbers of workers taking turns."""
    rates: dict[int, list[float]] = {count: [] for count in workers}
    pools = {count: WorkerPool(count) for count in workers}
    try:
        for repeat in range(repeats + 1):
            for count, pool in pools.items():
                with tempfile.TemporaryDirectory() as folder:
                    table = CostTable(Path(folder) / "costs.sqlite")
                    start = time.perf_counter()
                    table.fill(target, units, pool)
                    seconds = time.perf_counter() - start
                    table.close()
                if repeat:  # the first round starts the processes and loads the compiler
                    rates[count].append(len(units) / seconds)
    finally:
        for pool in pools.values():
            pool.close()
    first = statistics.median(rates[workers[0]])
    return [
        {
            "target": target.name, "units": len(units), "workers": count,
            "units/s": spread(own), "x 1 worker": statistics.median(own) / first,
        }
        for count, own in rates.items()
    ]  # fmt: skip


def _some(units: Sequence[Unit], count: int) -> list[Unit]:
    """Return ``count`` units, evenly spread over all."""
    count = min(count, len(units))
    if count < PARALLEL_FROM:
        raise BadInput(
            f"{count} units are too few: below {PARALLEL_FROM} a table is filled without workers",
            "raise --fill-units or --variants",
        )
    return [units[i * len(units) // count] for i in range(count)]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the three parts."""
    flags = parser("how well and how fast the cost table answers")
    flags.add_argument("--run", type=Path, action="append", default=[], help="may be repeated")
    flags.add_argument("--targets", nargs="*", default=["ethos-u55-128"])
    flags.add_argument(
        "--nets", nargs="*", default=["tiny_mobilenet_v2@1x1x28x28", "mobilenet_v2@1x3x96x96"]
    )
    flags.add_argument("--variants", type=int, default=20)
    flags.add_argument("--queries", type=int, default=2000)
    flags.add_argument("--cold", type=int, default=5, help="fresh processes that ask once, or 0")
    flags.add_argument("--fill-units", type=int, default=96)
    flags.add_argument("--repeats", type=int, default=3)
    given = flags.parse_args(argv)
    say = Terminal().progress
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    report = Report("cost_table", settings, given.out)
    accuracy, queries, fills = [], [], []
    for folder in given.run:
        run = FinishedRun.open(folder)
        accuracy += accuracy_rows(judge_run(run), run.target)
    with tempfile.TemporaryDirectory(prefix="chipfit-bench-") as place:
        for name in given.targets:
            target, path = create(name), Path(place) / "costs.sqlite"
            units: dict[str, Unit] = {}
            for text in given.nets:
                say(f"{given.variants} variants of {text} on {name}")
                with CostTable(path) as table:
                    judged = judge_variants(text, target, table, given.variants)
                accuracy += accuracy_rows(judged, target)
                queries.append(query_row(judged, target, path, given.queries, given.cold))
                units |= {u.key: u for w in judged.workloads for u in target.units(w)}
            if target.parallel:
                say(f"filling tables for {name}")
                fills += fill_rows(
                    _some(list(units.values()), given.fill_units), target, (1, 2), given.repeats
                )
    report.table("error of predicted latency, relative to the network as a whole", accuracy,
                 "bias: mean signed error. A run's members carry trained weights, which compress "
                 "differently from the synthetic ones that tables are filled with.")  # fmt: skip
    if queries:
        report.table("one whole-network query of a filled table", queries)
    if fills:
        report.table("filling an empty table", fills, "median (min..max) over repeats")
    report.write()
    return 0


if __name__ == "__main__":
    # Workers import these functions by name, which __main__ would hide.
    from benchmarks import cost_table

    sys.exit(cost_table.main())
