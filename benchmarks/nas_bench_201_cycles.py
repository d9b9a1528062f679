# SPDX-License-Identifier: Apache-2.0
"""``CycleStore``: cells of NAS-Bench-201 compiled as whole networks, kept in a file per target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch

from chipfit.files import storage_error
from chipfit.graph.capture import trace
from chipfit.graph.workload import Workload
from chipfit.nets import create
from chipfit.space.nas_bench_201 import EDGES, cell_text
from chipfit.targets import Target
from chipfit.workers import WorkerPool

INPUT = (1, 3, 32, 32)
KEYS = ("cycles", "latency_ms", "peak_sram_bytes")
Figures = Mapping[str, float]


def live(cell: Mapping[str, str]) -> str:
    """Return the notation of a cell without the edges that nothing comes from or leads to.

    The network is the same, operator by operator: 9 445 different ones are left of 15 625.
    """
    reached, needed = {"0"}, {"3"}
    for edge in sorted(EDGES, key=lambda e: e[2]):
        if cell[edge] != "none" and edge[0] in reached:
            reached.add(edge[2])
    for edge in sorted(EDGES, key=lambda e: e[2], reverse=True):
        if cell[edge] != "none" and edge[2] in needed:
            needed.add(edge[0])
    alive = {e: e[0] in reached & needed and e[2] in reached & needed for e in EDGES}
    return cell_text({edge: cell[edge] if alive[edge] else "none" for edge in EDGES})


def workload_of(text: str) -> Workload:
    """Return the network of a cell as published: five cells a stage, 32 x 32, ten classes."""
    return trace(create("nas_bench_201", cell=text).eval(), torch.zeros(INPUT))


def compiled(target: Target, text: str) -> dict[str, float]:
    """Compile a cell's network, in a worker."""
    total = target.cost(workload_of(text)).total
    return {key: float(total[key]) for key in KEYS}


class CycleStore:
    """Compiles cells, each only once, also over several runs.

    Args:
        folder: Keeps one file of JSON lines per target, to which every result is added at once.
        target: Compiles.
    """

    def __init__(self, folder: Path, target: Target) -> None:
        digest = hashlib.sha256(target.fingerprint.encode()).hexdigest()[:8]
        self.path = folder / f"cells-{target.name}-{digest}.jsonl"
        self.target = target
        self._known: dict[str, Figures] = {}
        lines = self.path.read_text().split("\n") if self.path.is_file() else []
        for line in lines:
            if line.endswith("}"):  # the last one may have been cut off
                row = json.loads(line)
                self._known[row.pop("cell")] = row

    def of(
        self, cells: Iterable[Mapping[str, str]], workers: int, say: Callable[[str], None]
    ) -> list[Figures]:
        """Return the figures of every cell, in order; absent ones are compiled now."""
        texts = [live(cell) for cell in cells]
        absent = sorted({text for text in texts if text not in self._known})
        with WorkerPool(workers, self.target) as pool:
            results: Iterator[tuple[int, Figures]] = (
                ((i, compiled(self.target, text)) for i, text in enumerate(absent))
                if workers == 1
                else pool.map(compiled, absent)
            )
            for done, (at, figures) in enumerate(results, 1):
                self._keep(absent[at], figures)
                if done % 100 == 0:
                    say(f"{self.target.name}: {done} of {len(absent)} networks compiled")
        return [self._known[text] for text in texts]

    def _keep(self, text: str, figures: Figures) -> None:
        self._known[text] = figures
        line = json.dumps({"cell": text, **figures})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                # A line of its own, even behind one that was cut off.
                file.write(f"\n{line}\n")
        except OSError as error:
            raise storage_error(self.path, error) from error
