# SPDX-License-Identifier: Apache-2.0
"""One contest of :mod:`benchmarks.mcu_budgets`: an original, a target, networks within bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.mcu_widths import GlobalMagnitude, residual_network
from benchmarks.narrowing import UniformWidths, largest_within
from benchmarks.recovering import RecoverJob, finished, recover
from chipfit.cli.console import Terminal
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.files import read_state, write_bytes, write_state
from chipfit.graph.capture import trace
from chipfit.methods.base import METHODS, Problem
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target
from chipfit.tasks import Task
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed
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
        folder = self.store / slug(bounds) / slug(name) / str(seed)
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


def slug(text: str) -> str:
    """Return text as a file name."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
