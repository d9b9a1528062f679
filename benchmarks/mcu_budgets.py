# SPDX-License-Identifier: Apache-2.0
"""``mcu`` against uniform widths and magnitude pruning within budgets of a microcontroller.

    python -m benchmarks.mcu_budgets --store runs/mcu-budgets

A residual network that is too large for every bound is trained once. For each set of bounds and
each seed, ``mcu`` learns the widths under all bounds at once; the baselines are the largest uniform
scaling and the largest one-shot magnitude pruning within the same bounds by the same target
(Torch-Pruning's own pruner reaches no network within the smaller bounds). All are fine-tuned with
the original as teacher, the baselines for as many more images as ``mcu`` has seen while it learnt
widths. Bounds of 64 KB, 64 KB and 30 M MACs are those that uNAS (Liberis, Dudziak and Lane,
EuroMLSys 2021, arXiv 2010.14246) sets for Fashion-MNIST. Results are kept in the store, so that an
interrupted benchmark continues.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.narrowing import RATIOS, UniformWidths, largest_within
from benchmarks.output import Report, command, parser, spread
from benchmarks.recovering import RecoverJob, finished, recover
from chipfit.cli.console import Terminal
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.files import read_state, write_bytes, write_state
from chipfit.flow.data import open_task
from chipfit.graph.capture import trace
from chipfit.graph.channels import channel_groups
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.widths import filter_norms, keep_largest
from chipfit.rewrite import edits_for, side_sizes, slice_channels
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.tasks import Task
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.train.randomness import private_global_stream, seed_global_stream, stream_seed
from chipfit.train.recovery import long_recovery
from chipfit.workers import WorkerPool

MCU, UNIFORM, MAGNITUDE = "mcu", "uniform widths", "magnitude pruning"
#: Bounds by name: uNAS's, and those of the smallest boards.
BOUNDS = {
    "64 KB / 64 KB / 30 M": "peak_sram_bytes=64k,flash_bytes=64k,macs=30M",
    "16 KB / 32 KB": "peak_sram_bytes=16k,flash_bytes=32k",
}
KEYS = ("peak_sram_bytes", "flash_bytes", "macs", "latency_ms")
Row = dict[str, Any]


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(width_in, width, 3, stride)
        self.second = _conv(width, width, 3, 1)[:2]
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else _conv(width_in, width, 1, stride)[:2]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width_in, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        return torch.relu(self.shortcut(x) + self.second(self.first(x)))


def _conv(width_in: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def residual_network(width: int, channels: int, classes: int, seed: int = 0) -> nn.Module:
    """Return three residual blocks at three resolutions, of 1, 2 and 4 times ``width``."""
    with private_global_stream():
        seed_global_stream(seed)
        return nn.Sequential(
            _conv(channels, width, 3, 1), Block(width, width, 1), Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4 * width, classes),
        )  # fmt: skip


class GlobalMagnitude:
    """One-shot pruning of the filters of smallest norm, relative to the mean of their group.

    Every rung removes a share of all channels that can go; widths are then rounded to the nearest
    multiple of the alignment, one at least.

    Args:
        net: The trained original; its weights are inherited.
        example: Its input, ``(1, C, H, W)``.
        alignment: Widths are multiples of it.
    """

    def __init__(self, net: nn.Module, example: Tensor, alignment: int) -> None:
        self._net, self._step = net, alignment
        self._groups = channel_groups(net, example)
        self._free = {g.name: g for g in self._groups if not g.frozen}
        ranked: list[tuple[float, str]] = []
        for name, group in self._free.items():
            norms = filter_norms(net, group, range(group.channels))
            ranked += [(float(n / norms.mean()), name) for n in norms]
        self._order = [name for _, name in sorted(ranked)]

    def __len__(self) -> int:
        return RATIOS

    def widths(self, rung: int) -> dict[str, int]:
        """Return the width of every group that can change; the last rung leaves them whole."""
        gone = self._order[: round(len(self._order) * (RATIOS - 1 - rung) / RATIOS)]
        found = {}
        for name, group in self._free.items():
            left = group.channels - gone.count(name)
            aligned = int(left / self._step + 0.5) * self._step
            found[name] = min(group.channels, max(self._step, aligned))
        return found

    def __getitem__(self, rung: int) -> nn.Module:
        kept = {
            name: keep_largest(self._net, self._free[name], range(self._free[name].channels), width)
            for name, width in self.widths(rung).items()
        }
        edits = edits_for(self._groups, kept, side_sizes(self._net))
        return slice_channels(self._net, edits)

    def describe(self, rung: int) -> str:
        """Return the widths of a rung."""
        return "-".join(str(width) for width in self.widths(rung).values())


class Contest:
    """One original, one target, and what is made of the original within bounds.

    Args:
        task: Data, loss and metric.
        target: The device.
        store: Folder of finished pieces.
        settings: The arguments of the benchmark.
    """

    def __init__(
        self, task: Task, target: Target, store: Path, settings: Mapping[str, Any]
    ) -> None:
        self.task, self.target, self.store, self._settings = task, target, store, settings
        self.net = self._original()
        self.example = task.example_input()
        cost = target.cost(trace(self.net, self.example)).total
        metrics = {f"val_{task.metric}": task.evaluate(self.net, "val")[task.metric]}
        self.original = Candidate(
            ORIGINAL, metrics=metrics, cost=dict(cost.values), provenance=cost.provenance
        )

    def finished(self, bounds: str, name: str, seed: int) -> Row:
        """Return one network, fine-tuned and tested; a kept result is not made again."""
        folder = self.store / _slug(bounds) / _slug(name) / str(seed)
        file = folder / "result.json"
        if not file.is_file():
            result = self._finished(bounds, name, seed, folder)
            write_bytes(file, (json.dumps(result) + "\n").encode())
        row: Row = json.loads(file.read_text())
        return row

    def original_row(self) -> Row:
        """Return the original, exported and tested like the others; kept as well."""
        file = self.store / "original" / "result.json"
        if not file.is_file():
            result = self._tested(ORIGINAL, self.net, 0, 0, file.parent)
            write_bytes(file, (json.dumps(result) + "\n").encode())
        row: Row = json.loads(file.read_text())
        return row

    def _original(self) -> nn.Module:
        s, task = self._settings, self.task
        _, channels, _, _ = task.input_shape
        net = residual_network(s["width"], channels, task.num_classes)
        file = self.store / "original" / "weights.safetensors"
        if file.is_file():
            net.load_state_dict(read_state(file))
            return net.eval()
        Terminal().progress("training the original")
        fit_model(
            net, task, task.recipe.replace(steps=s["original_steps"]), seed=0,
            checkpoint=self.store / "original" / "training.safetensors",
        )  # fmt: skip
        write_state(file, net.state_dict())
        return net.eval()

    def _finished(self, bounds: str, name: str, seed: int, folder: Path) -> Row:
        s = self._settings
        batch = self.task.recipe.batch_size
        learnt = s["search_steps"] * s["search_batch"] * 3 // 2
        if name == MCU:
            net, how = self._learnt(bounds, seed, folder)
            return {**self._tested(name, net, s["recovery_steps"], seed, folder), "how": how,
                    "before": learnt}  # fmt: skip
        kind: Callable[..., Any] = UniformWidths if name == UNIFORM else GlobalMagnitude
        ladder = kind(self.net, self.example, self.target.alignment)
        budget = Budget.parse(BOUNDS[bounds])
        rung = largest_within(
            ladder,
            lambda nets: [
                budget.met(self.target.cost(trace(net, self.example)).total) for net in nets
            ],
            name,
        )
        steps = s["recovery_steps"] + round(learnt / batch)
        result = self._tested(name, ladder[rung], steps, seed, folder)
        return {**result, "how": ladder.describe(rung), "before": 0}

    def _learnt(self, bounds: str, seed: int, folder: Path) -> tuple[nn.Module, str]:
        """Return what ``mcu`` makes of the original, with its weights, and the widths."""
        s, budget = self._settings, Budget.parse(BOUNDS[bounds])
        run = Run.open(folder / "run", {"bounds": str(budget), "seed": seed, **s})
        pool = WorkerPool(1, Bench(self.net, self.task))
        problem = Problem(
            net=self.net, example=self.example, task=self.task, target=self.target,
            table=CostTable(self.store / "costs.sqlite"), budget=budget, original=self.original,
            pool=pool, seed=seed, progress=Terminal().progress,
            options={"search_steps": s["search_steps"], "batch_size": s["search_batch"]},
        )  # fmt: skip
        try:
            found = list(METHODS.get("mcu").value().search(problem, run))[-1]
        finally:
            pool.close()
            run.close()
        widths = "-".join(str(width) for width in found.architecture.values())
        return found.build(self.net, run.folder), widths

    def _tested(self, name: str, net: nn.Module, steps: int, seed: int, folder: Path) -> Row:
        """Return the network fine-tuned (0 steps: as it is), exported to int8 and tested."""
        recipe = long_recovery(self.task.recipe, 1.0).replace(steps=max(steps, 1))
        job = RecoverJob(name, net, recipe, stream_seed(seed, "mcu-budgets"), self.target, folder)
        bench = Bench(self.net, self.task)
        found = recover(bench, job) if steps else {**finished(bench, job), "images": 0}
        Terminal().progress(f"{name}, seed {seed}: int8 test {found['int8_test']:.4f}")
        cost = {key: found["cost"][key] for key in KEYS}
        return {
            "name": name, "images": found["images"], "val": found["val"],
            "test": found["test"], "int8_test": found["int8_test"], "cost": cost, "how": "",
            "before": 0,
        }  # fmt: skip


def table(original: Row, results: Mapping[tuple[str, str], Sequence[Row]]) -> list[Row]:
    """Return a line per bounds and method, the original first.

    Args:
        original: Its result.
        results: By bounds and method, one per seed.
    """
    lines = [_line("", original, [original], 0.0)]
    for (bounds, _), rows in results.items():
        best = spread([row["int8_test"] for row in results[bounds, MCU]])["median"]
        lines.append(_line(bounds, rows[0], rows, best))
    return lines


def _line(bounds: str, first: Row, rows: Sequence[Row], best: float) -> Row:
    int8 = spread([row["int8_test"] for row in rows])
    met = None
    if bounds:
        limits = Budget.parse(BOUNDS[bounds]).limits
        met = all(row["cost"][key] <= v for row in rows for key, v in limits.items())
    return {
        "bounds": bounds, "network": first["name"],
        "arena bytes": spread([row["cost"]["peak_sram_bytes"] for row in rows]),
        "file bytes": spread([row["cost"]["flash_bytes"] for row in rows]),
        "MACs": spread([row["cost"]["macs"] for row in rows]),
        "latency_ms": spread([row["cost"]["latency_ms"] for row in rows]),
        "within": met, "images": first["before"] + first["images"],
        "test": spread([row["test"] for row in rows]), "int8 test": int8,
        "int8 - mcu": int8["median"] - best if bounds else None, "made by": first["how"],
    }  # fmt: skip


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Make what is missing in the store, print the table and write the result files."""
    flags = parser("mcu against uniform widths and magnitude pruning on a microcontroller")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--target", default="cortex-m4")
    flags.add_argument("--width", type=int, default=32, help="of the original's first block")
    flags.add_argument("--bounds", nargs="+", choices=list(BOUNDS), default=list(BOUNDS))
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--original-steps", type=int, default=500)
    flags.add_argument("--search-steps", type=int, default=240)
    flags.add_argument("--search-batch", type=int, default=64)
    flags.add_argument("--recovery-steps", type=int, default=240)
    flags.add_argument("--store", type=Path, default=Path("runs/mcu-budgets"))
    given = flags.parse_args(argv)
    if min(given.seeds, given.original_steps, given.search_steps, given.recovery_steps) < 1:
        raise BadInput("seeds and steps are 1 or more")
    names = ("data", "target", "width", "original_steps", "search_steps", "search_batch",
             "recovery_steps")  # fmt: skip
    settings = {name: getattr(given, name) for name in names}
    store = given.store / _slug("-".join(str(v) for v in settings.values()))
    task = open_task(given.data, None)
    contest = Contest(task, create(given.target), store, settings)
    original = contest.original_row()
    results = {
        (bounds, name): [contest.finished(bounds, name, seed) for seed in range(given.seeds)]
        for bounds in given.bounds
        for name in (MCU, UNIFORM, MAGNITUDE)
    }
    report = Report("mcu_budgets", {**settings, "seeds": given.seeds}, given.out)
    report.table(
        f"{given.data} on {given.target}, {given.seeds} seeds", table(original, results),
        "median (min..max) over seeds; arena and file are those of the fine-tuned int8 files, "
        "measured by tflite-micro on this machine, whose pointers are wider than a "
        "microcontroller's; accuracy is that of the same files in the interpreter. Images: all "
        "that the weights were trained on since the original. Widths are mcu's of the first seed.",
    )  # fmt: skip
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
