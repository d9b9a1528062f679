# SPDX-License-Identifier: Apache-2.0
"""What a search step costs as candidates grow, by relaxation, in units of training one network.

    python -m benchmarks.search_cost [--candidates 2 4 8 16] [--rounds 9]

A chain of inverted residuals, each with N candidates of hidden widths between three quarters and
the whole of the plain network's: no candidate is dearer than the block of the network that all are
compared with, so what is above 1 is the relaxation's. A step is a draw, forward, backward into
weights and architecture parameters, and both optimisers, on random images. Forms take turns in
random order, and a ratio is that of one turn. Activation bytes are those held for backward at the
peak, counted tensor by tensor (:mod:`chipfit.supernet.memory`), the largest of a few draws. Times
are CPU times where one thread runs. Finished pieces are kept in ``--store``: the same command
continues where it was stopped.

Microsoft NNI is not installable beside this Python and PyTorch, so rows "after NNI" are a reference
of our own: its mixed layer computes all candidates, stacks them and sums them with weights.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import Report, command, parser, spread
from benchmarks.search_forms import PLAIN, RELAXATIONS, WINDOWS, Step, forms
from chipfit.cli.console import Terminal
from chipfit.files import write_json
from chipfit.supernet.memory import saved_activation_bytes

#: What the papers claim to be flat, and within how much of one network's training.
FLAT, WITHIN = ("binary gates, two paths (ProxylessNAS)", *WINDOWS), 1.3
#: Forms in which candidates are drawn, and so many steps of these have their activations counted.
DRAWN, DRAWS = tuple(RELAXATIONS)[2:], 4

Row = dict[str, Any]


def step_seconds(
    steps: Mapping[str, Step], rounds: int, threads: int, seed: int
) -> dict[str, list[float]]:
    """Time the forms in turns, in random order, after one step of each to warm up."""
    clock = time.process_time if threads == 1 else time.perf_counter
    order, turns = random.Random(seed), list(steps)
    times: dict[str, list[float]] = {form: [] for form in steps}
    for turn in range(rounds + 1):
        order.shuffle(turns)
        for form in turns:
            start = clock()
            steps[form]()
            if turn:
                times[form].append(clock() - start)
    return times


def measured(given: Any, count: int) -> list[Row]:
    """Return one row per form at a number of candidates."""
    made = forms(given, count)
    held = {
        name: max(saved_activation_bytes(step, net) for _ in range(DRAWS if name in DRAWN else 1))
        for name, (net, step) in made.items()
    }
    times = step_seconds(
        {name: step for name, (_, step) in made.items()}, given.rounds, given.threads, given.seed
    )
    return [
        {
            "relaxation": name, "candidates": 1 if name == PLAIN else count,
            "ms a step": spread([1e3 * t for t in times[name]]),
            "x one network's time": spread(
                [t / p for t, p in zip(times[name], times[PLAIN], strict=True)]
            ),
            "activation bytes": held[name],
            "x one network's bytes": held[name] / held[PLAIN],
        }
        for name in made
    ]  # fmt: skip


def summary(results: Mapping[int, Sequence[Row]]) -> list[Row]:
    """Return one row per relaxation: its ratios at the fewest and at the most candidates."""
    fewest, most = min(results), max(results)
    rows = []
    for name in [row["relaxation"] for row in results[fewest] if row["relaxation"] != PLAIN]:
        at = {
            count: next(r for r in rows_ if r["relaxation"] == name)
            for count, rows_ in results.items()
        }
        times = {count: row["x one network's time"]["median"] for count, row in at.items()}
        held = {count: row["x one network's bytes"] for count, row in at.items()}
        rows.append({
            "relaxation": name,
            f"x time at {fewest}": times[fewest], f"x time at {most}": times[most],
            f"x bytes at {fewest}": held[fewest], f"x bytes at {most}": held[most],
            f"time within {WITHIN}": max(times.values()) <= WITHIN,
            f"bytes within {WITHIN}": max(held.values()) <= WITHIN,
            "claimed flat": name in FLAT,
        })  # fmt: skip
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure count by count, print the tables."""
    flags = parser("cost of a search step against the number of candidates")
    flags.add_argument("--candidates", type=int, nargs="+", default=[2, 4, 8, 16])
    flags.add_argument("--rounds", type=int, default=9, help="steps of each form")
    flags.add_argument("--batch", type=int, default=32)
    flags.add_argument("--size", type=int, default=16, help="pixels a side of an image")
    flags.add_argument("--channels", type=int, default=24)
    flags.add_argument("--hidden", type=int, default=144, help="of the plain network's blocks")
    flags.add_argument("--layers", type=int, default=4)
    flags.add_argument("--threads", type=int, default=1)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--store", type=Path, default=Path("runs/search-cost"))
    given = flags.parse_args(argv)
    settings = {k: v for k, v in vars(given).items() if k not in ("out", "store")}
    same = "-".join(str(v) for k, v in settings.items() if k != "candidates")
    report, terminal = Report("search_cost", settings, given.out), Terminal()
    torch.set_num_threads(given.threads)
    results: dict[int, list[Row]] = {}
    for count in given.candidates:
        place = given.store / same / f"{count}.json"
        if not place.is_file():
            write_json(place, measured(given, count))
        results[count] = json.loads(place.read_text())
        report.table(f"{count} candidates a block", results[count])
        terminal.progress(f"{count} candidates done")
    report.table(
        "as candidates grow", summary(results),
        "bytes are those held for backward; a compared path of binary gates runs without a graph "
        "in the backward pass and holds a block's tensors for as long as it runs; after NNI: our "
        "reference of its mixed layer, as NNI is not installable here",
    )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
