# SPDX-License-Identifier: Apache-2.0
"""Tables of :mod:`benchmarks.search_alike`: searches against random, and across targets."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.output import spread
from chipfit.rewrite.replay import Rewrite
from chipfit.targets import Target

RANDOM = "random in the band"

Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A network to train.

    Args:
        edits: What makes it of the space's network.
        predicted_ms: By the cost table of the target it is for.
        cpu_s: Processor time of its search; 0 where it was drawn.
        held_bytes: Most that a step of its search held for backward passes.
    """

    edits: tuple[Rewrite, ...]
    predicted_ms: float
    cpu_s: float = 0.0
    held_bytes: int = 0

    @property
    def digest(self) -> str:
        """Names the network."""
        text = json.dumps([edit.to_json() for edit in self.edits])
        return hashlib.sha256(text.encode()).hexdigest()[:10]


#: A network, the seed of its training and the result.
Entry = tuple[Found, int, Mapping[str, Any]]
#: Latency in ms by network and target.
Latencies = Mapping[tuple[str, str], float]


def rows_of(
    target: Target, limit_ms: float, entries: Mapping[str, Sequence[Entry]], true_ms: Latencies
) -> list[Row]:
    """Return the table of one target: every search against random networks of its cost."""
    key = metric_of(target)
    drawn = [100 * r[key] for _, _, r in entries[RANDOM]]
    rows = []
    for name, own in entries.items():
        tested = [100 * r[key] for _, _, r in own]
        truth = [true_ms[f.digest, target.name] for f, _, _ in own]
        rows.append({
            "method": name, "networks": len({f.digest for f, _, _ in own}),
            "x budget, predicted": spread([f.predicted_ms / limit_ms for f, _, _ in own]),
            f"{target.provenance} ms": spread(truth),
            "MACs M": spread([r["macs"] / 1e6 for _, _, r in own]),
            f"{key.replace('_', ' ')} %": spread(tested),
            "points above random": statistics.fmean(tested) - statistics.fmean(drawn),
            "beats of random %": 100 * statistics.fmean(
                [float(t > d) for t in tested for d in drawn]
            ),
            "search CPU s": spread([f.cpu_s for f, _, _ in own]),
            "held MB": max(f.held_bytes for f, _, _ in own) / 1e6,
        })  # fmt: skip
    return rows


def elsewhere(
    targets: Sequence[Target], entries: Sequence[Mapping[str, Sequence[Entry]]], true_ms: Latencies
) -> list[Row]:
    """Return what networks found for one target cost on every target."""
    rows = []
    for name in entries[0]:
        for target, own in zip(targets, entries, strict=True):
            rows.append({"method": name, "found for": target.name} | {
                f"ms on {other.name}": spread(
                    [true_ms[f.digest, other.name] for f, _, _ in own[name]]
                ) for other in targets
            } | {"test %": spread([100 * r["test"] for _, _, r in own[name]])})  # fmt: skip
    return rows


def metric_of(target: Target) -> str:
    """Return the accuracy of what the target runs."""
    return "int8_test" if target.precision == "int8" else "test"
