# SPDX-License-Identifier: Apache-2.0
"""SESR: training steps a second with blocks executed collapsed and expanded.

    python -m benchmarks.sesr_training

Bhardwaj et al., arXiv 2103.09404, section 3.3: both forms have the same loss and the same
gradients; collapsed, a forward pass of SESR-M5 on 32 patches of 64 x 64 takes 1.84 G MACs instead
of 41.77 G. A step is forward, mean absolute error, backward and Adam, on random patches. Forms take
turns in random order, and a ratio is that of one turn; a plain network of the same size, trained
without factors, says what collapsing itself costs. Times are CPU times where one thread runs.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from benchmarks.output import Report, command, parser, spread
from chipfit.blocks.collapsible_conv import CollapsibleConv
from chipfit.cli.console import Terminal
from chipfit.graph.capture import trace
from chipfit.nets import create

NETS = ("sesr_m3", "sesr_m5", "sesr_m11")
#: What is behind the name of a network in each form; the ratios are to the first.
FORMS = {"expanded": ":deploy=false,expanded=true", "collapsed": ":deploy=false", "plain": ""}
#: Of the paper's training, with its AMSGrad variant.
LEARNING_RATE = 2e-4

Row = dict[str, Any]


def patches(batch: int, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return random luminance ``(N, 1, size, size)`` and ``(N, 1, 2 size, 2 size)``."""
    generator = torch.Generator().manual_seed(0)
    large = torch.rand(batch, 1, 2 * size, 2 * size, generator=generator, dtype=dtype)
    return nn.functional.avg_pool2d(large, 2), large


def networks(name: str, size: int) -> dict[str, nn.Module]:
    """Return the network in every form; the factors are equal where there are any."""
    nets = {form: create(name + tail, input_shape=(1, 1, size, size))
            for form, tail in FORMS.items()}  # fmt: skip
    nets["expanded"].load_state_dict(nets["collapsed"].state_dict())
    return nets


def stepper(net: nn.Module, batch: int, size: int) -> Callable[[], None]:
    """Return a function that makes one training step."""
    x, wanted = patches(batch, size)
    adam = torch.optim.Adam(net.parameters(), LEARNING_RATE, amsgrad=True)

    def step() -> None:
        adam.zero_grad()
        l1_loss(net(x), wanted).backward()
        adam.step()

    return step


def forward_macs(net: nn.Module, size: int) -> int:
    """Return MACs for one patch, without the products of the factors."""
    return trace(net, torch.zeros(1, 1, size, size)).macs


def collapse_macs(net: nn.Module) -> int:
    """Return MACs of the products of the factors, once for a batch."""
    blocks = [m for m in net.modules() if isinstance(m, CollapsibleConv) and not m.expanded]
    return sum(m.expand.numel() * len(m.project) for m in blocks)


def differences(name: str, batch: int, size: int, dtype: torch.dtype) -> tuple[float, float]:
    """Return how far loss and gradients of the two forms lie apart, relative.

    Of a gradient: the largest difference in a tensor in units of the tensor's largest element, and
    of that the largest over all tensors.
    """
    losses, gradients = [], []
    nets = networks(name, size)
    x, wanted = patches(batch, size, dtype)
    for form in ("expanded", "collapsed"):
        net = nets[form].to(dtype)
        loss = l1_loss(net(x), wanted)
        gradients.append(torch.autograd.grad(loss, list(net.parameters())))
        losses.append(loss.item())
    apart = [((a - b).abs().max() / a.abs().max()).item() for a, b in zip(*gradients, strict=True)]
    return abs(losses[0] - losses[1]) / losses[0], max(apart)


def step_seconds(
    steps: Mapping[str, Callable[[], None]], rounds: int, threads: int
) -> dict[str, list[float]]:
    """Time the forms in turns, in random order, after one step of each to warm up."""
    clock = time.process_time if threads == 1 else time.perf_counter
    order, turns = random.Random(0), list(steps)
    times: dict[str, list[float]] = {form: [] for form in steps}
    for turn in range(rounds + 1):
        order.shuffle(turns)
        for form in turns:
            start = clock()
            steps[form]()
            if turn:
                times[form].append(clock() - start)
    return times


def rows_of(name: str, batch: int, size: int, rounds: int, threads: int) -> list[Row]:
    """Measure one network in all forms."""
    nets = networks(name, size)
    macs = {form: batch * forward_macs(net, size) + collapse_macs(net)
            for form, net in nets.items()}  # fmt: skip
    steps = {form: stepper(net.train(), batch, size) for form, net in nets.items()}
    times = step_seconds(steps, rounds, threads)
    base = times["expanded"]
    return [
        {
            "network": name, "form": form, "forward G MACs": macs[form] / 1e9,
            "MACs x fewer": macs["expanded"] / macs[form],
            "images a second": spread([batch / t for t in times[form]]),
            "times faster": spread([b / t for b, t in zip(base, times[form], strict=True)]),
        }
        for form in nets
    ]  # fmt: skip


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure network by network and compare the gradients."""
    flags = parser("training speed of SESR, collapsed against expanded")
    flags.add_argument("--nets", nargs="+", default=list(NETS))
    flags.add_argument("--batch", type=int, default=32, help="patches in a step")
    flags.add_argument("--size", type=int, default=64, help="pixels a side of a patch")
    flags.add_argument("--rounds", type=int, default=9, help="steps of each form")
    flags.add_argument("--threads", type=int, default=1)
    given = flags.parse_args(argv)
    torch.set_num_threads(given.threads)
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    report, terminal = Report("sesr_training", settings, given.out), Terminal()
    speeds: list[Row] = []
    equal: list[Row] = []
    for name in given.nets:
        terminal.progress(f"{name}: {given.rounds} steps of each form")
        speeds += rows_of(name, given.batch, given.size, given.rounds, given.threads)
        for dtype in (torch.float32, torch.float64):
            loss, gradient = differences(name, min(given.batch, 4), given.size, dtype)
            equal.append({"network": name, "type": str(dtype).removeprefix("torch."),
                          "loss": loss, "gradients": gradient})  # fmt: skip
    report.table(
        f"training steps on {given.batch} patches of {given.size} x {given.size}", speeds,
        "forward MACs of collapsed blocks include the products of the factors, once for a batch",
    )  # fmt: skip
    report.table(
        "collapsed against expanded: largest relative difference", equal,
        "in float32, a value that rounding moves across 0 changes the slope of a PReLU or the sign "
        "of an error, and with it single gradients",
    )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
