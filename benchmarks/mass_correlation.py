# SPDX-License-Identifier: Apache-2.0
"""Does accuracy follow NN-Mass better than it follows parameters? A small residual family.

    python -m benchmarks.mass_correlation

Residual networks at three masses, each at several widths and so depths (narrow and deep to wide and
shallow), are trained alike on some thousand images. Printed are the rank correlations (Kendall's
tau-b) of the test accuracy with NN-Mass, parameters, MACs and non-linear units, with 95 % bootstrap
intervals over the networks, whatever they are. RAN-i (arXiv 2208.08562) and the paper on NN-Mass
(Bhardwaj et al., CVPR 2021) claim the first. Every finished training is kept in ``--store``.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import chipfit as cf
from benchmarks.output import Report, command, parser, spread
from chipfit.blocks.basic_residual import BasicResidual
from chipfit.cli.console import Terminal
from chipfit.files import write_bytes
from chipfit.graph.capture import trace
from chipfit.scores.nn_mass import nn_mass
from chipfit.scores.non_linear_units import non_linear_units
from chipfit.train.loop import fit_model

#: Mass of a network whose three stages have widths ``w, 2w, 4w`` and ``d`` residual blocks each,
#: besides a first block that changes the width: ``2 d (w + 2w + 4w) = 14 w d``.
MASSES = {"light": (14 * 24), "middle": (14 * 48), "heavy": (14 * 96)}
#: Blocks of a stage; the width of the first stage is ``mass / (14 d)``.
DEPTHS = (1, 2, 3, 4)
FIGURES = ("NN-Mass", "params", "MACs", "non-linear units")

Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A network of the family: its mass by name, first width and residual blocks of a stage."""

    mass: str
    width: int
    depth: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.mass}-{self.width}x{self.depth}"


class Residual(nn.Module):
    """A 3x3 stem and three stages at full, half and a quarter of the resolution."""

    def __init__(self, width: int, depth: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        before = width
        for stage in range(3):
            after = width * 2**stage
            if stage:
                # A plain convolution: no shortcut passes a change of width, so none is counted.
                blocks.append(nn.Sequential(
                    nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
                ))  # fmt: skip
            blocks += [BasicResidual(after, after, 1) for _ in range(depth)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


def shapes(masses: Sequence[str], depths: Sequence[int]) -> list[Shape]:
    """Return the networks: every mass at every depth that divides it."""
    return [
        Shape(mass, MASSES[mass] // (14 * depth), depth)
        for mass in masses for depth in depths if MASSES[mass] % (14 * depth) == 0
    ]  # fmt: skip


def build(shape: Shape, task: Any, seed: int) -> Residual:
    """Return a freshly drawn network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Residual(shape.width, shape.depth, task.input_shape[1], task.num_classes)


def facts(shape: Shape, task: Any) -> Row:
    """Return the figures that accuracy may follow."""
    workload = trace(build(shape, task, 0), torch.zeros(task.input_shape))
    return {
        "NN-Mass": nn_mass(workload), "params": workload.parameter_count, "MACs": workload.macs,
        "non-linear units": non_linear_units(workload),
    }  # fmt: skip


def trained(shape: Shape, task: Any, seed: int, given: Any, say: Any) -> float:
    """Return the test accuracy of one training, recalled where it was finished."""
    folder = given.store / f"{given.data}-{given.steps}-{given.batch}"
    place = folder / f"{shape.name}-{seed}.json"
    if place.exists():
        return float(json.loads(place.read_text())["accuracy"])
    recipe = task.recipe.replace(
        steps=given.steps, batch_size=given.batch, learning_rate=given.learning_rate
    )
    net = build(shape, task, seed)
    checkpoint = folder / f"{shape.name}-{seed}.safetensors"
    result = fit_model(net, task, recipe, seed=seed, checkpoint=checkpoint, threads=1)
    accuracy = task.evaluate(net, "test", limit=given.test_images)["accuracy"]
    say(f"{shape.name}, seed {seed}: {accuracy:.4f} in {result.seconds:.0f} s")
    write_bytes(place, json.dumps({"accuracy": accuracy}).encode())
    checkpoint.unlink(missing_ok=True)
    return float(accuracy)


def tau(rows: Sequence[Row], figure: str) -> float:
    """Return Kendall's tau-b of mean accuracy with a figure; NaN where one never changes."""
    return float(kendalltau([r["mean"] for r in rows], [r[figure] for r in rows]).statistic)


def correlation_rows(rows: Sequence[Row], draws: int = 2000) -> list[Row]:
    """Return one row per figure, and per pair with NN-Mass the interval of the difference."""
    rng = np.random.default_rng(0)
    samples = [[rows[i] for i in rng.integers(len(rows), size=len(rows))] for _ in range(draws)]
    found = []
    resampled = {f: np.array([tau(sample, f) for sample in samples]) for f in FIGURES}
    for figure in FIGURES:
        values = resampled[figure]
        better = resampled["NN-Mass"] - values
        low, high = np.nanpercentile(values, [2.5, 97.5])
        less, more = np.nanpercentile(better, [2.5, 97.5])
        found.append({
            "accuracy with": figure, "tau-b": tau(rows, figure), "from": low, "to": high,
            "NN-Mass minus it": tau(rows, "NN-Mass") - tau(rows, figure),
            "difference from": less, "difference to": more,
        })  # fmt: skip
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train the family and correlate."""
    flags = parser("accuracy against NN-Mass")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--masses", nargs="+", choices=list(MASSES), default=list(MASSES))
    flags.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS))
    flags.add_argument("--seeds", type=int, default=2)
    flags.add_argument("--steps", type=int, default=300)
    flags.add_argument("--batch", type=int, default=64)
    flags.add_argument("--learning-rate", type=float, default=0.1)
    flags.add_argument("--test-images", type=int, default=5000)
    flags.add_argument("--store", type=Path, default=Path("runs/mass_correlation"))
    given = flags.parse_args(argv)
    settings = {k: v for k, v in vars(given).items() if k not in ("out", "store")}
    report, terminal = Report("mass_correlation", settings, given.out), Terminal()
    task = cf.tasks.classification(given.data)
    rows: list[Row] = []
    for shape in shapes(given.masses, given.depths):
        values = [
            trained(shape, task, seed, given, terminal.progress) for seed in range(given.seeds)
        ]
        rows.append({
            "mass": shape.mass, "width": shape.width, "depth": shape.depth, **facts(shape, task),
            "accuracy": spread(values), "mean": statistics.mean(values),
        })  # fmt: skip
    report.table("residual networks", rows)
    report.table(
        "rank correlation of accuracy",
        correlation_rows(rows),
        "tau-b over the networks, 95 % bootstrap intervals; 'NN-Mass minus it' above 0 means that "
        "accuracy follows NN-Mass better.",
    )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
