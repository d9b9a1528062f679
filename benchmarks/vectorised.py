# SPDX-License-Identifier: Apache-2.0
"""How many architectures a second the vectorised path costs, beside one query at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.cost.predict import predict_total
from chipfit.cost.table import CostTable
from chipfit.cost.vectorised import VectorisedCost
from chipfit.graph.capture import trace
from chipfit.graph.workload import Workload
from chipfit.space import Choice, SearchSpace
from chipfit.targets import Target

#: Channels, first stride and resolution of the space's stages.
WIDTHS = (16, 24, 40, 64)
SIZE = 64
COMPARED = 40
KEY = "latency_ms"

#: Per stage an expansion and a kernel: 256 networks of inverted bottlenecks.
SPACE = SearchSpace(
    tuple(
        choice
        for i in range(len(WIDTHS))
        for choice in (Choice(f"{i}.expansion", (3, 6)), Choice(f"{i}.kernel", (3, 5)))
    )
)


def build(architecture: Mapping[str, Any]) -> Workload:
    """Return the network of an architecture of :data:`SPACE`."""
    return _build(tuple(architecture[choice.name] for choice in SPACE))


@lru_cache(maxsize=1024)
def _build(options: tuple[int, ...]) -> Workload:
    layers: list[nn.Module] = [ConvBNAct(3, 16, 3, 2)]
    c = 16
    for width, expansion, kernel in zip(WIDTHS, options[::2], options[1::2], strict=True):
        for stride in (2, 1):
            layers.append(InvertedResidual(c, width, c * expansion, kernel, stride))
            c = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))
    return trace(net, torch.zeros(1, 3, SIZE, SIZE))


def vectorised_row(
    target: Target, table: CostTable, rows: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Time the vectorised path on ``rows`` architectures and compare it with single queries."""
    say(f"{target.name}: filling a search space")
    start = time.perf_counter()
    fast = VectorisedCost(SPACE, build, target, table)
    found_s = time.perf_counter() - start
    codes = fast.sample(rows)
    start = time.perf_counter()
    fast.fill(codes)
    filled_s = time.perf_counter() - start
    rates = []
    for _ in range(5):
        start = time.process_time()
        latencies = fast.cost(codes)
        rates.append(rows / (time.process_time() - start))
    some = [fast.decode(row) for row in codes[:COMPARED]]
    networks = [build(architecture) for architecture in some]
    start = time.process_time()
    single = [predict_total(network, target, table)[KEY] for network in networks]
    single_rate = COMPARED / (time.process_time() - start)
    return {
        "target": target.name, "layers": len(fast.slots), "architectures": rows,
        "prices": sum(len(costs) for _, _, costs in fast.additive_costs()),
        "dependences found in s": found_s, "filled in s": filled_s,
        "architectures/s": statistics.median(rates), "single queries/s": single_rate,
        "x single": statistics.median(rates) / single_rate,
        "equal": bool(np.array_equal(latencies[:COMPARED], single)),
    }  # fmt: skip
