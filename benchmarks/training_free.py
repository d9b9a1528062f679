# SPDX-License-Identifier: Apache-2.0
"""Training-free scores against the accuracy of trained networks: cells of NAS-Bench-201.

    python -m benchmarks.training_free [--cells 80] [--band 40] [--store runs/training-free]

Every score of :mod:`chipfit.scores` is computed on untrained networks of a random sample of cells,
and again on cells of exactly equal MACs, where size can tell nothing. Prints Spearman's rho and
Kendall's tau-b against CIFAR-10 accuracy with bootstrap intervals. Scores are kept in ``--store``:
the same command continues where it was stopped, and more cells add to those that are there.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from benchmarks.output import Report, command, parser, spread
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.files import write_json
from chipfit.nets import create
from chipfit.scores import SCORES, compute
from chipfit.space import Architecture
from chipfit.space.nas_bench_201 import Accuracies, accuracies, cell_text

#: Of 3x3 and of 1x1 convolutions on the way from input to output, in the band of equal MACs.
BAND = (2, 1)
#: Share of resampled correlations inside an interval.
CONFIDENCE = 0.95
WAYS = (("0-3",), ("0-1", "1-3"), ("0-2", "2-3"), ("0-1", "1-2", "2-3"))

Values = NDArray[np.float64]


def convolutions(cell: Mapping[str, str]) -> tuple[int, int]:
    """Return the 3x3 and the 1x1 convolutions on ways through the cell: they decide its MACs."""
    open_ways = [way for way in WAYS if all(cell[edge] != "none" for edge in way)]
    live = [cell[edge] for edge in {edge for way in open_ways for edge in way}]
    return live.count("nor_conv_3x3"), live.count("nor_conv_1x1")


def sample(
    cells: Sequence[Architecture], count: int, seed: int, kind: tuple[int, int] | None = None
) -> list[Architecture]:
    """Return the first ``count`` of the cells in an order drawn by ``seed``.

    Args:
        cells: To choose from.
        count: How many; a larger sample holds every smaller one of the same seed.
        seed: Of the order.
        kind: Only cells of these :func:`convolutions`.

    Raises:
        BadInput: There are not as many.
    """
    drawn = [cell for cell in cells if kind is None or convolutions(cell) == kind]
    drawn.sort(key=lambda cell: cell.id)
    random.Random(seed).shuffle(drawn)
    if not 3 <= count <= len(drawn):
        raise BadInput(f"{count} cells make no sample: from 3 to {len(drawn)} are possible")
    return drawn[:count]


def scored(
    cell: Architecture, names: Sequence[str], images: int, seed: int, folder: Path
) -> dict[str, dict[str, float]]:
    """Return value and seconds of every score of a cell, from the store where it has them."""
    place = folder / f"{cell.id}.json"
    known = json.loads(place.read_text()) if place.is_file() else {}
    missing = [name for name in names if name not in known]
    if missing:
        net = create("nas_bench_201", cell=cell_text(cell), seed=seed)
        draw = torch.Generator().manual_seed(seed)
        example = torch.randn(images, 3, 32, 32, generator=draw)
        for name in missing:
            start = time.perf_counter()
            value = compute(name, net, example, seed=seed)
            known[name] = {"value": value, "seconds": time.perf_counter() - start}
        write_json(place, known)
    return {name: known[name] for name in names}


def correlations(values: Values, truth: Values) -> tuple[float, float] | None:
    """Return Spearman's rho and Kendall's tau-b; ``None`` where either list is constant."""
    a, b = rankdata(values), rankdata(truth)
    if not np.ptp(a) or not np.ptp(b):
        return None
    return float(np.corrcoef(a, b)[0, 1]), float(kendalltau(a, b).statistic)


def with_intervals(
    values: Values, truth: Values, resamples: int, seed: int
) -> list[dict[str, float] | None]:
    """Return rho and tau-b as ``median`` with the bootstrap interval as ``min`` and ``max``.

    Cells are drawn with replacement; the interval is that of the percentiles. ``median`` is the
    correlation of all cells.
    """
    found = correlations(values, truth)
    if found is None:
        return [None, None]
    draw = np.random.default_rng(seed)
    drawn = (draw.integers(len(truth), size=len(truth)) for _ in range(resamples))
    several = [pair for at in drawn if (pair := correlations(values[at], truth[at]))]
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    bounds = np.percentile(np.asarray(several if several else [found]), tails, axis=0)
    return [
        {"median": round(found[i], 3), "min": round(float(bounds[0, i]), 3),
         "max": round(float(bounds[1, i]), 3)}
        for i in (0, 1)
    ]  # fmt: skip


def rows_of(
    results: Mapping[Architecture, Mapping[str, Mapping[str, float]]],
    table: Mapping[Architecture, Accuracies], names: Sequence[str], accuracy: str,
    resamples: int, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one row per score, the one that orders best first; higher scores promise more."""
    truth = np.asarray([getattr(table[cell], accuracy) for cell in results])
    rows: list[dict[str, Any]] = []
    for name in names:
        values = np.asarray([result[name]["value"] for result in results.values()])
        rho, tau = with_intervals(values, truth, resamples, seed)
        seconds = spread([result[name]["seconds"] for result in results.values()])["median"]
        rows.append({
            "score": name, "Spearman": rho, "Kendall": tau, "different values": len(set(values)),
            "median ms a cell": 1e3 * seconds,
        })  # fmt: skip
    rows.sort(key=lambda row: -row["Spearman"]["median"] if row["Spearman"] else 2.0)
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Score, correlate, print."""
    every = [entry.name for entry in SCORES]
    flags = parser("training-free scores against accuracy on NAS-Bench-201")
    flags.add_argument("--cells", type=int, default=80, help="of the random sample")
    flags.add_argument("--band", type=int, default=40, help="cells of equal MACs")
    flags.add_argument("--images", type=int, default=16, help="random images of every score")
    flags.add_argument("--scores", nargs="+", choices=every, default=every)
    flags.add_argument(
        "--accuracy", choices=list(Accuracies.__dataclass_fields__), default="baseline"
    )
    flags.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--store", type=Path, default=Path("runs/training-free"))
    given = flags.parse_args(argv)
    settings = {key: v for key, v in vars(given).items() if key not in ("out", "store")}
    report, terminal = Report("training_free", settings, given.out), Terminal()
    torch.set_num_threads(1)
    table = accuracies()
    folder = given.store / f"images-{given.images}-seed-{given.seed}"
    threes, ones = BAND
    samples = {
        f"{given.cells} cells at random": sample(list(table), given.cells, given.seed),
        f"{given.band} cells of equal MACs ({threes} 3x3 and {ones} 1x1 convolutions)": sample(
            list(table), given.band, given.seed, BAND
        ),
    }
    for title, cells in samples.items():
        results = {}
        for number, cell in enumerate(cells, 1):
            results[cell] = scored(cell, given.scores, given.images, given.seed, folder)
            terminal.progress(f"{title}: {number} of {len(cells)}")
        values = [getattr(table[cell], given.accuracy) for cell in cells]
        report.table(
            title, rows_of(results, table, given.scores, given.accuracy, given.resamples,
                           given.seed),
            f"against {given.accuracy} accuracy, {min(values):.1f} to {max(values):.1f} %; brackets"
            f" are {CONFIDENCE:.0%} bootstrap intervals; a score of one value orders nothing",
        )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
