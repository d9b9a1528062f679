# SPDX-License-Identifier: Apache-2.0
"""Collapsing linear parts: how exact, how much is left, and what a device gains.

    python -m benchmarks.collapse

Random networks of convolutions, batch norms, branches, pooling and concatenations are collapsed in
float32 and float64 and compared with the originals; then blocks that are known to be one
convolution; then networks whose inverted bottlenecks have lost their inner activations, with the
predicted cost on an Ethos-U deciding what is merged.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.collapse_graphs import Sum, random_network, settle
from benchmarks.output import Report, command, parser, percentile
from chipfit import nets
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.cli.console import Terminal
from chipfit.cost.location import default_table_path
from chipfit.flow.collapse import collapse
from chipfit.graph.capture import trace
from chipfit.rewrite.collapse import Collapsed, collapse_steps

DTYPES = {"float32": torch.float32, "float64": torch.float64}
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def layers(net: nn.Module) -> int:
    """Return how many convolutions and linear layers there are."""
    return sum(isinstance(module, LAYERS) for module in net.modules())


def collapsed(net: nn.Module, shape: Sequence[int], dtype: torch.dtype) -> tuple[Collapsed, float]:
    """Return the collapsed network, and its largest error relative to the largest output."""
    net = net.to(dtype).eval()
    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(1), dtype=dtype)
    done = collapse_steps(net, x)
    with torch.no_grad():
        expected, found = net(x.clone()), done.net(x.clone())
    return done, float((expected - found).abs().max() / expected.abs().max())


def random_rows(count: int, progress: Terminal) -> list[dict[str, object]]:
    """Return the errors over ``count`` random networks, and how much was merged."""
    errors: dict[str, list[float]] = {name: [] for name in DTYPES}
    left: dict[str, Counter[str]] = {name: Counter() for name in DTYPES}
    for seed in range(count):
        if seed % 100 == 0:
            progress.progress(f"random network {seed} of {count}")
        for name, dtype in DTYPES.items():
            net, shape = random_network(seed)
            done, error = collapsed(net, shape, dtype)
            errors[name].append(error)
            left[name].update(before=layers(net), after=layers(done.net), networks=1)
            left[name].update(step.kind for step in done.steps)
    return [
        {
            "type": name, "networks": count, "worst error": max(errors[name]),
            "99 % of errors below": percentile(errors[name], 99),
            "layers before": left[name]["before"], "layers after": left[name]["after"],
            **{kind: left[name][kind] for kind in ("sequence", "branches", "residual", "concat")},
        }
        for name in DTYPES
    ]  # fmt: skip


def blocks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return blocks and networks with linear parts, and the shape that each takes."""
    c = 16

    def normed(*modules: nn.Module) -> nn.Sequential:
        return nn.Sequential(*modules, nn.BatchNorm2d(c))

    def conv(k: int, padding: int, i: int = c, o: int = c) -> nn.Conv2d:
        return nn.Conv2d(i, o, k, padding=padding, bias=False)

    shape = (1, c, 15, 17)
    diverse = Sum(
        [
            normed(conv(3, 1)),
            normed(conv(1, 0)),
            nn.Sequential(nn.ZeroPad2d(1), normed(conv(1, 0)), normed(conv(3, 0))),
            nn.Sequential(nn.ZeroPad2d(1), normed(conv(1, 0)), normed(nn.AvgPool2d(3, 1))),
        ],
        "add",
    )
    linear = nn.Sequential(conv(3, 1, c, 256), nn.Conv2d(256, c, 1))
    return {
        "RepVGG block": (Sum([normed(conv(3, 1)), normed(conv(1, 0)), nn.BatchNorm2d(c)], "add"),
                         shape),
        "DBB (padding before the 1x1)": (diverse, shape),
        "SESR's linear block with its shortcut": (Sum([nn.Identity(), linear], "add"), shape),
        "RepVGG-A0 as trained, 64 pixels": (
            nets.create("repvgg_a0", deploy=False, input_shape=(1, 3, 64, 64)), (1, 3, 64, 64),
        ),
        "EfficientNet-Lite0, 64 pixels": (
            nets.create("efficientnet_lite0", input_shape=(1, 3, 64, 64)), (1, 3, 64, 64),
        ),
    }  # fmt: skip


def block_rows() -> list[dict[str, object]]:
    """Return what becomes of the known blocks."""
    rows = []
    for name, (net, shape) in blocks().items():
        settle(net)
        row: dict[str, object] = {"network": name}
        x = torch.zeros(shape)
        row |= {"layers": layers(net), "operators": len(trace(net, x)), "MACs": trace(net, x).macs}
        done, error = collapsed(net, shape, torch.float32)
        work = trace(done.net, x)
        row |= {"layers after": layers(done.net), "operators after": len(work),
                "MACs after": work.macs, "error float32": error}  # fmt: skip
        row["error float64"] = collapsed(net, shape, torch.float64)[1]
        net.float()
        rows.append(row)
    return rows


def linearised(net: nn.Module) -> nn.Module:
    """Remove the activations inside the inverted bottlenecks of ``net``, in place."""
    for block in list(net.modules()):
        for part in list(block.modules()) if isinstance(block, InvertedResidual) else []:
            for name, child in list(part.named_children()):
                if isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish | nn.SiLU):
                    setattr(part, name, nn.Identity())
    return net


def device_rows(
    target: str, names: Sequence[str], size: int, table: str
) -> list[dict[str, object]]:
    """Return what ``target`` gains by collapsing linearised networks."""
    rows, progress = [], Terminal().progress
    for name in names:
        shape = (1, 3, size, size)
        net = linearised(nets.create(name, input_shape=shape)).eval()
        settle(net)
        found = collapse(net, target, shape, table=table, progress=progress)
        merged = [step for step in found.steps if step.kind != "fold"]
        rows.append({
            "network": f"{name}, inner activations removed", "merged": len(merged),
            "operators": found.operators[0], "operators after": found.operators[1],
            "MMACs": found.before["macs"] / 1e6, "MMACs after": found.after["macs"] / 1e6,
            "ms": found.before["latency_ms"], "ms after": found.after["latency_ms"],
            "faster": found.before["latency_ms"] / found.after["latency_ms"],
            "predicted ms after": found.steps[-1].after,
        })  # fmt: skip
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Collapse everything and print what came of it."""
    flags = parser("exactness and gain of collapsing linear parts")
    flags.add_argument("--networks", type=int, default=1000, help="random networks")
    flags.add_argument("--target", default="ethos-u55-128")
    flags.add_argument("--nets", nargs="*", default=["mobilenet_v2", "efficientnet_lite0"])
    flags.add_argument("--size", type=int, default=224, help="pixels a side")
    flags.add_argument("--store", default=str(default_table_path()), help="cost table")
    given = flags.parse_args(argv)
    settings = {key: value for key, value in vars(given).items() if key not in ("out", "store")}
    report, terminal = Report("collapse", settings, given.out), Terminal()
    report.table(
        "random networks", random_rows(given.networks, terminal),
        "errors are relative to the largest output; without a cost, MACs decide",
    )  # fmt: skip
    report.table("known blocks", block_rows(), "parts behind activations are further layers")
    if given.nets:
        report.table(
            f"linear bottlenecks on {given.target}",
            device_rows(given.target, given.nets, given.size, given.store),
            "ms: the whole network, compiled or measured; a merger was kept where the predicted ms"
            " fell; weights are random",
        )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
