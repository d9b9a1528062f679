# SPDX-License-Identifier: Apache-2.0
"""RAN-i scaling searched stage by stage, against the published networks and ConvNeXt.

    python -m benchmarks.ran_i_scaling

First the published multipliers: MACs and NN-Mass. Then, for every target, the cheapest widths and
depths of ConvNeXt-T's stages that have at least the NN-Mass and the non-linear units of each
published RAN-i, beside it and beside ConvNeXt. On CPUs all networks of one size run in one
interleaved session with ConvNeXt as the reference; on Ethos-U they are compiled. Nothing is
trained, so no accuracy is claimed. A size that is finished is kept in ``--store``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.output import Report, command, parser
from benchmarks.ran_i_fps import SIZES, program_of, speed
from chipfit.cli.console import Terminal
from chipfit.files import write_bytes
from chipfit.flow.scale import ScaledNetwork, scale
from chipfit.graph.capture import trace
from chipfit.nets import create as create_net
from chipfit.scores.nn_mass import nn_mass
from chipfit.scores.non_linear_units import non_linear_units
from chipfit.targets import create as create_target
from chipfit.targets.base import Target
from chipfit.targets.compare import compare
from chipfit.targets.measured import MeasuredTarget
from chipfit.targets.timing import Protocol

TARGETS = ("onnxruntime-cpu", "openvino-cpu", "ethos-u85-256")
#: MACs of RAN-i-T, S and B at 224 x 224 as published, in G (arXiv 2208.08562).
PUBLISHED_GMACS = {"T": 3.28, "S": 4.58, "B": 8.43}
#: Frames a second relative to ConvNeXt that ours should reach on ONNX Runtime.
GOAL = {"S": 1.6, "B": 1.6}

Row = dict[str, Any]


def facts(spec: str, size: int) -> Row:
    """Return what is known of a network of the zoo without running it."""
    import torch

    net: Any
    with torch.device("meta"):
        net = create_net(spec, input_shape=(1, 3, size, size))
        workload = trace(net, torch.zeros(1, 3, size, size))
    return {
        "widths": "-".join(map(str, net.widths)), "depths": "-".join(map(str, net.depths)),
        "params M": workload.parameter_count / 1e6, "GMACs": workload.macs / 1e9,
        "NN-Mass": round(nn_mass(workload)), "non-linear M": non_linear_units(workload) / 1e6,
    }  # fmt: skip


def published_rows(sizes: Sequence[str], size: int) -> list[Row]:
    """Return ConvNeXt and RAN-i side by side."""
    rows = []
    for letter in sizes:
        for kind in ("convnext", "ran_i"):
            spec = f"{kind}_{SIZES[letter]}"
            wanted = PUBLISHED_GMACS[letter] if kind == "ran_i" else None
            rows.append({"network": spec, **facts(spec, size), "published GMACs": wanted})
    return rows


def searched(target: Target, letter: str, given: Any, say: Any) -> list[ScaledNetwork]:
    """Return ours: the best of the finalists, and that of the paper's own rule."""
    found = []
    for rule in given.rules:
        result = scale(
            "convnext_tiny", target, mass_of=f"ran_i_{SIZES[letter]}", rule=rule, family=False,
            finalists=given.finalists, input_shape=(1, 3, given.size, given.size),
            bounds={"width_floor": given.width_floor, "depth_cap": given.depth_cap},
            table=given.store / "costs.sqlite", progress=say,
        )  # fmt: skip
        found.append(result.family[1])
    return found


def rows_of(target: Target, letter: str, given: Any, say: Any) -> list[Row]:
    """Search, then cost ConvNeXt, RAN-i, RAN-i with rounded widths, and ours together."""
    ours = searched(target, letter, given, say)
    name = SIZES[letter]
    step = target.alignment
    specs = {
        f"ConvNeXt-{letter}": f"convnext_{name}", f"RAN-i-{letter}": f"ran_i_{name}",
        f"RAN-i-{letter}, multiples of {step}": f"ran_i_{name}:width_multiple={step}",
        **{f"ours ({rule})": net.build for rule, net in zip(given.rules, ours, strict=True)},
    }  # fmt: skip
    say(f"{target.spec}: {len(specs)} networks of size {letter}")
    programs = [program_of(spec, given.size) for spec in specs.values()]
    if isinstance(target, MeasuredTarget):
        speeds = [speed(one) for one in compare(target, programs)]
    else:
        costs = [cost.total for cost in target.cost_many(programs)]
        speeds = [{"FPS x": costs[0]["latency_ms"] / cost["latency_ms"]} for cost in costs]
    return [
        {"target": target.spec, "size": letter, "network": label, **facts(spec, given.size),
         "FPS x": None, "from": None, "to": None, "verdict": None, **fps,
         "goal": GOAL.get(letter) if label.startswith("ours") else None}
        for (label, spec), fps in zip(specs.items(), speeds, strict=True)
    ]  # fmt: skip


def kept(place: Path, settings: Row) -> list[Row] | None:
    """Return rows that an earlier run finished with the same settings."""
    if not place.exists():
        return None
    stored = json.loads(place.read_text())
    return stored["rows"] if stored["settings"] == json.loads(json.dumps(settings)) else None


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Search and measure target by target, size by size."""
    flags = parser("RAN-i scaling, searched")
    flags.add_argument("--targets", nargs="*", default=list(TARGETS), help="none: the first table")
    flags.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    flags.add_argument("--rules", nargs="+", choices=("search", "uniform"), default=["search"])
    flags.add_argument("--width-floor", type=float, default=2 / 3)
    flags.add_argument("--depth-cap", type=float, default=2.5)
    flags.add_argument("--finalists", type=int, default=3, help="costed as wholes in the search")
    flags.add_argument("--rounds", type=int, default=15, help="of each session")
    flags.add_argument("--sessions", type=int, default=2, help="of fresh instances")
    flags.add_argument("--size", type=int, default=224, help="pixels a side")
    flags.add_argument("--store", type=Path, default=Path("runs/ran_i_scaling"))
    given = flags.parse_args(argv)
    settings = {k: v for k, v in vars(given).items() if k not in ("out", "store")}
    report, terminal = Report("ran_i_scaling", settings, given.out), Terminal()
    report.table("published networks", published_rows(given.sizes, given.size))
    report.write()
    # What decides a piece, besides its target and its size.
    own = {k: v for k, v in settings.items() if k not in ("targets", "sizes")}
    for name in given.targets:
        target = create_target(name)
        if isinstance(target, MeasuredTarget):
            target.protocol = Protocol(
                min_rounds=given.rounds, max_rounds=given.rounds, sessions=given.sessions,
                warm_up=1,
            )  # fmt: skip
        rows: list[Row] = []
        for letter in given.sizes:
            place = given.store / f"{name.replace(':', '_')}-{letter}.json"
            found = kept(place, own)
            if found is None:
                found = rows_of(target, letter, given, terminal.progress)
                document = {"settings": own, "rows": found}
                write_bytes(place, json.dumps(document, indent=1, default=str).encode())
            rows += found
        report.table(
            f"at least RAN-i's NN-Mass and non-linear units, {target.fingerprint}",
            rows,
            "FPS x: frames a second relative to the ConvNeXt of the same size; from, to: 95 % "
            "interval of the ratio. Untrained: no accuracy is claimed.",
        )
        report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
