# SPDX-License-Identifier: Apache-2.0
"""Networks trained alike from scratch, each a job whose result is kept in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chipfit.cli.console import Terminal
from chipfit.export.tflite import calibrate, to_tflite
from chipfit.files import write_bytes
from chipfit.flow.finalise import CALIBRATION_IMAGES, file_metric
from chipfit.graph.capture import capture
from chipfit.nets import create
from chipfit.nets.registry import read_options
from chipfit.scores.non_linear_units import non_linear_units
from chipfit.targets import Target
from chipfit.tasks import Task
from chipfit.train.loop import fit_model
from chipfit.train.recipe import Recipe
from chipfit.workers import WorkerPool


@dataclass(frozen=True)
class AlikeJob:
    """One network to train.

    Args:
        spec: Its name in the zoo, with options; the classes and the images are the task's.
        recipe: How to train it, from scratch.
        seed: Of initial weights and of the order of the data.
        folder: Where the result is kept.
        edits: What is done to the network before it is trained, if anything.
    """

    spec: str
    recipe: Recipe
    seed: int
    folder: Path
    edits: tuple[Any, ...] = ()

    @property
    def file(self) -> Path:
        """Of the result."""
        return self.folder / f"{self.seed}.json"

    @property
    def tflite(self) -> Path:
        """The int8 network."""
        return self.folder / f"{self.seed}.tflite"

    def write(self, result: dict[str, Any]) -> None:
        """Keep the result."""
        write_bytes(self.file, (json.dumps(result) + "\n").encode())


def train_alike(task: Task, job: AlikeJob) -> dict[str, Any]:
    """Train, export to int8, and read the test split once; the result and the file are kept.

    Returns:
        ``val``, ``test`` and ``int8_test`` (accuracies), ``images`` trained on, ``macs``,
        ``params`` and ``units``.
    """
    net = network_of(job, task)
    trained = fit_model(net, task, job.recipe, seed=job.seed, checkpoint=None)
    program = capture(net, task.example_input())
    batches = task.calibration_batches(CALIBRATION_IMAGES // 64, 64)
    write_bytes(job.tflite, to_tflite(program, calibrate(program, batches)).data)
    found = {
        "spec": job.spec, "images": trained.images, "seconds": trained.seconds,
        "val": task.evaluate(net, "val")[task.metric],
        "test": task.evaluate(net, "test")[task.metric],
        "int8_test": file_metric(task, job.tflite),
        "macs": program.workload.macs,
        "params": sum(p.numel() for p in net.parameters()),
        "units": non_linear_units(program.workload),
        "cycles": {}, "latency_ms": {},
    }  # fmt: skip
    job.write(found)
    return found


def options_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Return options of a method that were given as ``name=value``.

    Raises:
        BadInput: One is malformed.
    """
    return read_options("method:" + ",".join(pairs))[1]


def network_of(job: AlikeJob, task: Task) -> Any:
    """Return a job's network with fresh weights."""
    from chipfit.rewrite.replay import replay

    net = create(
        job.spec, num_classes=task.num_classes, input_shape=task.input_shape, seed=job.seed
    )
    return replay(net, job.edits) if job.edits else net


def train_all(
    task: Task, targets: Sequence[Target], jobs: Sequence[AlikeJob], workers: int,
    say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the results of all jobs, in order; what is there already is not trained again.

    Besides what :func:`train_alike` tells there are ``cycles`` and ``latency_ms``, by target.
    """
    say = say or Terminal().progress
    waiting = [job for job in jobs if not job.file.is_file()]
    with WorkerPool(workers or os.cpu_count() or 1, task) as pool:
        for number, (_, result) in enumerate(pool.map(train_alike, waiting), 1):
            say(
                f"{result['spec']}: val {result['val']:.4f}, int8 test {result['int8_test']:.4f},"
                f" {result['seconds']:.0f} s ({number} of {len(waiting)} trained)"
            )
    return [_costed(job, targets) for job in jobs]


def _costed(job: AlikeJob, targets: Sequence[Target]) -> dict[str, Any]:
    """Return a kept result with what its file costs on every target."""
    result: dict[str, Any] = json.loads(job.file.read_text())
    absent = [target for target in targets if target.spec not in result["cycles"]]
    for target in absent:
        total = target.cost_file(job.tflite).total
        result["cycles"][target.spec] = total["cycles"]
        result["latency_ms"][target.spec] = total["latency_ms"]
    if absent:
        job.write(result)
    return result
