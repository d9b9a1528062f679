# SPDX-License-Identifier: Apache-2.0
"""RAN-i against ConvNeXt on this machine: frames a second, as published and with rounded widths.

    python -m benchmarks.ran_i_fps

RAN-i (Bhardwaj et al., arXiv 2208.08562) has up to 1.9 times fewer MACs than ConvNeXt at nearly
equal accuracy, but widths such as 303 channels. Networks that are compared run in one interleaved
session with the ConvNeXt as the reference, which is also timed against itself: that A/A pair says
what a difference must exceed to mean anything. Results are written after every target.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.output import Report, command, parser
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.graph.capture import capture
from chipfit.graph.workload import Program
from chipfit.nets import create as create_net
from chipfit.targets import create as create_target
from chipfit.targets.compare import Comparison, compare
from chipfit.targets.measured import MeasuredTarget
from chipfit.targets.timing import Protocol

SIZES = {"T": "tiny", "S": "small", "B": "base"}
#: RAN-i / ConvNeXt; the last two have about equal MACs.
PAIRS = ("T/T", "S/S", "B/B", "S/T", "B/S")
TARGETS = (
    "onnxruntime-cpu", "openvino-cpu", "torch-cpu", "torch-cpu:mode=channels_last",
)  # fmt: skip
#: ImageNet top-1 in per cent as published (arXiv 2201.03545 and 2208.08562); not measured here.
TOP1 = {
    "convnext_tiny": 82.1, "convnext_small": 83.1, "convnext_base": 83.8,
    "ran_i_tiny": 82.03, "ran_i_small": 82.63, "ran_i_base": 83.61,
}  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One RAN-i network against one ConvNeXt: the pair as typed, and the widths' multiple."""

    pair: str
    multiple: int

    @property
    def net(self) -> str:
        """Name of the RAN-i network."""
        return f"ran_i_{SIZES[self.pair[0]]}"

    @property
    def spec(self) -> str:
        """The same with its option."""
        return self.net if self.multiple == 1 else f"{self.net}:width_multiple={self.multiple}"

    @property
    def reference(self) -> str:
        """Name of the ConvNeXt."""
        return f"convnext_{SIZES[self.pair[2]]}"


def program_of(spec: str, size: int) -> Program:
    """Return a network of the zoo for images of ``size`` pixels."""
    import torch

    net = create_net(spec, input_shape=(1, 3, size, size)).eval()
    return capture(net, torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)))


def rows_of(
    target: MeasuredTarget, reference: str, entries: Sequence[Entry], size: int
) -> list[Row]:
    """Measure ``entries``, which share a reference, in one session."""
    specs = list(dict.fromkeys([reference, *(entry.spec for entry in entries)]))
    programs = [program_of(spec, size) for spec in specs]
    found = dict(zip(specs, compare(target, programs), strict=True))
    macs = {spec: program.workload.macs for spec, program in zip(specs, programs, strict=True)}
    return [
        {
            "target": target.spec, "pair": entry.pair, "widths": widths(entry.multiple),
            "MACs x fewer": macs[reference] / macs[entry.spec], **speed(found[entry.spec]),
            "A/A ±%": 100 * found[reference].noise,
            "top-1 difference": TOP1[entry.net] - TOP1[reference] if entry.multiple == 1 else None,
        }
        for entry in entries
    ]  # fmt: skip


def widths(multiple: int) -> str:
    """Return how a network's widths are rounded."""
    return "published" if multiple == 1 else f"multiples of {multiple}"


def speed(comparison: Comparison) -> Row:
    """Return frames a second relative to the reference, with the 95 % interval."""
    return {
        "FPS x": 1 / comparison.ratio, "from": 1 / comparison.high, "to": 1 / comparison.low,
        "verdict": comparison.verdict,
    }  # fmt: skip


def summary_rows(rows: Sequence[Row]) -> list[Row]:
    """Return one row per target and rounding, with the pairs side by side."""
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    found: list[Row] = [
        {"target": "MACs", "widths": "published",
         **{r["pair"]: r["MACs x fewer"] for r in rows if r["widths"] == "published"}}
    ]  # fmt: skip
    for target, rounding in dict.fromkeys((row["target"], row["widths"]) for row in rows):
        own = {r["pair"]: r for r in rows if (r["target"], r["widths"]) == (target, rounding)}
        cells = {pair: f"{own[pair]['FPS x']:.2f} ({own[pair]['from']:.2f}..{own[pair]['to']:.2f})"
                 for pair in pairs}  # fmt: skip
        found.append({"target": target, "widths": rounding, **cells})
    return found


def measured_target(name: str, protocol: Protocol) -> MeasuredTarget:
    """Return a target that measures, with its protocol replaced.

    Raises:
        BadInput: It does not measure.
    """
    target = create_target(name)
    if not isinstance(target, MeasuredTarget):
        raise BadInput(f"{name} measures nothing", f"for instance {', '.join(TARGETS)}")
    target.protocol = protocol
    return target


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure target by target."""
    flags = parser("RAN-i against ConvNeXt on this machine")
    flags.add_argument("--targets", nargs="+", default=list(TARGETS))
    flags.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    flags.add_argument("--multiple", type=int, default=8, help="widths are rounded to it, too")
    flags.add_argument("--rounds", type=int, default=10, help="of each session")
    flags.add_argument("--sessions", type=int, default=2, help="of fresh instances")
    flags.add_argument("--size", type=int, default=224, help="pixels a side")
    given = flags.parse_args(argv)
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    protocol = Protocol(
        min_rounds=given.rounds, max_rounds=given.rounds, sessions=given.sessions, warm_up=1
    )
    targets = [measured_target(name, protocol) for name in given.targets]
    report, terminal = Report("ran_i_fps", settings, given.out), Terminal()
    entries = [Entry(pair, m) for pair in given.pairs for m in (1, given.multiple)]
    every: list[Row] = []
    for target in targets:
        rows: list[Row] = []
        for reference in dict.fromkeys(entry.reference for entry in entries):
            own = [entry for entry in entries if entry.reference == reference]
            terminal.progress(f"{target.spec}: {reference} and {len(own)} of RAN-i")
            rows += rows_of(target, reference, own, given.size)
        report.table(f"frames a second of RAN-i relative to ConvNeXt, {target.fingerprint}", rows)
        every += rows
        report.write()
    report.table("frames a second relative to ConvNeXt, all targets", summary_rows(every))
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
