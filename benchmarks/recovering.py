# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, exporting and testing one network, as a job for a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.export.onnx import to_onnx
from chipfit.export.tflite import calibrate, to_tflite
from chipfit.files import write_bytes
from chipfit.flow.finalise import CALIBRATION_IMAGES, cost_fields, file_metric
from chipfit.graph.capture import capture
from chipfit.targets import Target
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.train.recipe import Recipe


@dataclass(frozen=True)
class RecoverJob:
    """One network to fine-tune and to finish.

    Args:
        row: What it is called in the table.
        net: With inherited weights.
        recipe: How to fine-tune it.
        seed: Of the order of the data.
        target: Costs the exported file where it compiles; a measured one is asked afterwards.
        folder: Where the files are written.
    """

    row: str
    net: nn.Module
    recipe: Recipe
    seed: int
    target: Target
    folder: Path


def recover(bench: Bench, job: RecoverJob) -> dict[str, Any]:
    """Fine-tune with the original as teacher, export, and read the test split once.

    Returns:
        ``images`` trained on, ``val``, ``test`` and ``int8_test`` metrics, ``onnx`` (the path of
        the file) and, for targets that compile or model, ``cost`` of the exported file.
    """
    result = fit_model(job.net, bench.task, job.recipe, seed=job.seed, teacher=bench.net)
    return {**finished(bench, job), "images": result.images}


def finished(bench: Bench, job: RecoverJob) -> dict[str, Any]:
    """Export a network as it is, and read the test split once.

    Returns:
        What :func:`recover` does, without ``images``.
    """
    task, net = bench.task, job.net
    example = task.example_input()
    program = capture(net, example)
    data = to_tflite(
        program, calibrate(program, task.calibration_batches(CALIBRATION_IMAGES // 64, 64))
    ).data
    tflite, onnx = job.folder / "model.tflite", job.folder / "model.onnx"
    write_bytes(tflite, data)
    to_onnx(net, example, onnx)
    found: dict[str, Any] = {
        "row": job.row, "onnx": onnx,
        "val": task.evaluate(net, "val")[task.metric],
        "test": task.evaluate(net, "test")[task.metric],
        "int8_test": file_metric(task, tflite),
    }  # fmt: skip
    if job.target.provenance != "measured":
        file = {"tflite": tflite, "onnx": onnx}.get(job.target.file_format)
        cost = job.target.cost_file(file) if file else job.target.cost(program)
        found["cost"] = cost_fields(cost, job.target, program.workload)["cost"]
    return found
