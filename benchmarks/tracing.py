# SPDX-License-Identifier: Apache-2.0
"""How long tracing a network takes, against PyTorch's own tracers.

    python -m benchmarks.tracing --repeats 7

Cold: the first trace of a fresh process in which torch is imported, one process per trace.
Warm: all tracers take turns in one process. The peers do less or other things: ``torch.fx`` knows
no shapes (with ``ShapeProp`` it runs the network for them), none folds batch norm or fuses.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.output import Report, command, parser, spread
from benchmarks.variants import named_network
from chipfit.cli.console import Terminal
from chipfit.flow.network import load_network
from chipfit.workers import WorkerPool

OURS = "chipfit trace"
Tracer = Callable[[nn.Module, torch.Tensor], Any]


def _trace(net: nn.Module, example: torch.Tensor) -> Any:
    from chipfit.graph.capture import trace

    return trace(net, example)


def _capture(net: nn.Module, example: torch.Tensor) -> Any:
    from chipfit.graph.capture import capture

    return capture(net, example)


def _export(net: nn.Module, example: torch.Tensor) -> Any:
    return torch.export.export(net, (example,), strict=False)


def _fx(net: nn.Module, example: torch.Tensor) -> Any:
    import torch.fx

    return torch.fx.symbolic_trace(net)


def _fx_shapes(net: nn.Module, example: torch.Tensor) -> Any:
    import torch.fx
    from torch.fx.passes.shape_prop import ShapeProp

    traced = torch.fx.symbolic_trace(net)
    with torch.no_grad():
        ShapeProp(traced).propagate(example)
    return traced


#: What takes part, by the name in the table.
TRACERS: dict[str, Tracer] = {
    OURS: _trace,
    "chipfit capture (with weights)": _capture,
    "torch.export, strict=False": _export,
    "torch.fx (no shapes)": _fx,
    "torch.fx + ShapeProp": _fx_shapes,
}


def _network(text: str) -> tuple[nn.Module, torch.Tensor]:
    name, shape = named_network(text)
    loaded = load_network(name, input_shape=shape)
    return loaded.net.eval(), loaded.example()


def _timed_ms(tracer: str, net: nn.Module, example: torch.Tensor) -> float:
    start = time.perf_counter()
    TRACERS[tracer](net, example)
    return (time.perf_counter() - start) * 1e3


def cold_ms(_: Any, item: tuple[str, str]) -> float:
    """Time the first trace of this process; the network is built before."""
    network, tracer = item
    return _timed_ms(tracer, *_network(network))


def warm_ms(_: Any, item: tuple[str, int]) -> dict[str, list[float]]:
    """Time every tracer in turn, some rounds after a first that does not count."""
    network, repeats = item
    net, example = _network(network)
    times: dict[str, list[float]] = {name: [] for name in TRACERS}
    for _round in range(repeats + 1):
        for name, own in times.items():
            own.append(_timed_ms(name, net, example))
    return {name: own[1:] for name, own in times.items()}


def rows_of(network: str, repeats: int, cold_repeats: int) -> list[dict[str, Any]]:
    """Return one row per tracer, ours first; ratios are to ours, so above 1 means slower."""
    # The tracers take turns here too, so that a change of the machine's load meets them all.
    cold: dict[str, list[float]] = {name: [] for name in TRACERS}
    for _ in range(cold_repeats):
        for name, own in cold.items():
            with WorkerPool(1) as pool:
                own += [result for _, result in pool.map(cold_ms, [(network, name)])]
    with WorkerPool(1) as pool:
        ((_, warm),) = pool.map(warm_ms, [(network, repeats)])
    return [
        {
            "network": network, "tracer": name,
            **_columns("cold", cold[name], cold[OURS]), **_columns("warm", warm[name], warm[OURS]),
        }
        for name in TRACERS
    ]  # fmt: skip


def _columns(label: str, times: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Return the time and its ratio to ours; empty where nothing was timed."""
    if not times:
        return {f"{label} ms": None, f"{label} x ours": None}
    ratio = statistics.median(times) / statistics.median(ours)
    return {f"{label} ms": spread(times), f"{label} x ours": ratio}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    flags = parser("time to trace a network, against torch.export and torch.fx")
    nets = ["mobilenet_v2", "efficientnet_lite0", "resnet18"]
    flags.add_argument("--nets", nargs="+", default=nets, help="NAME or NAME@1x3x96x96")
    flags.add_argument("--repeats", type=int, default=7, help="warm rounds")
    flags.add_argument("--cold", type=int, default=3, help="fresh processes per tracer, or 0")
    given = flags.parse_args(argv)
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    report = Report("tracing", settings, given.out)
    rows = []
    for network in given.nets:
        Terminal().progress(f"tracing {network}")
        rows += rows_of(network, given.repeats, given.cold)
    report.table(
        "time to trace, one thread", rows,
        "median (min..max). Cold: first trace of a fresh process, imports of the tracer included, "
        "those of torch not.",
    )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    # Workers import these functions by name, which __main__ would hide.
    from benchmarks import tracing

    sys.exit(tracing.main())
