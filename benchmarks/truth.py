# SPDX-License-Identifier: Apache-2.0
"""What networks really cost as wholes, kept in a file so that a benchmark can be continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chipfit.files import write_bytes
from chipfit.graph.workload import Workload
from chipfit.targets import Target

KEY = "latency_ms"
#: Networks that a measured target interleaves in one session.
SESSION = 6


@dataclass(frozen=True)
class Whole:
    """The latency of one network.

    Args:
        latency_ms: Compiled or measured.
        half_width_ms: Half of its 95 % interval; 0 where it is compiled.
    """

    latency_ms: float
    half_width_ms: float


class Truth:
    """Latencies by the structure of networks.

    Args:
        folder: Keeps one file per target.
        target: Compiles or measures.
    """

    def __init__(self, folder: Path, target: Target) -> None:
        digest = hashlib.sha256(target.fingerprint.encode()).hexdigest()[:8]
        self._path = folder / f"truth-{target.name}-{digest}.json"
        self._target = target
        self._known: dict[str, list[float]] = {}
        if self._path.is_file():
            self._known = json.loads(self._path.read_text())["latency_ms"]

    def of(self, workloads: Sequence[Workload], say: Callable[[str], None]) -> list[Whole]:
        """Return the latency of every network; absent ones are costed and kept."""
        absent = list({w.key: w for w in workloads if w.key not in self._known}.values())
        step = SESSION if self._target.provenance == "measured" else 1
        for start in range(0, len(absent), step):
            some = absent[start : start + step]
            for workload, cost in zip(some, self._target.cost_many(some), strict=True):
                total = cost.total
                self._known[workload.key] = [total[KEY], total.spread.get(KEY, 0.0)]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            data = {"fingerprint": self._target.fingerprint, KEY: self._known}
            write_bytes(self._path, (json.dumps(data, indent=1) + "\n").encode())
            if (start // step) % 10 == 0:
                say(f"{self._target.name}: {start + len(some)} of {len(absent)} whole networks")
        return [Whole(*self._known[workload.key]) for workload in workloads]
