# SPDX-License-Identifier: Apache-2.0
"""Finish a candidate: export, check and cost its files, and read the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.graph.capture import capture, trace
from chipfit.graph.workload import Program, Workload
from chipfit.rewrite.replay import replay
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.targets import create
from chipfit.targets.base import NetworkCost, Target
from chipfit.targets.onnx_target import OnnxTarget
from chipfit.tasks.base import Task
from chipfit.train.jobs import Bench
from chipfit.workers import WorkerPool

#: Training images that set the ranges of int8 activations.
CALIBRATION_IMAGES = 512
#: Least share of images on which an int8 file must choose the class that the network chooses.
INT8_AGREEMENT = 0.8
#: Largest error of a float file, relative to the largest output.
FLOAT_ERROR = 1e-3
#: Name of the float file beside an int8 one of the same format.
FLOAT_ONNX = "onnx_float32"
#: Images per calibration run of an ONNX file: all of its activations are held at once.
CALIBRATION_BATCH = 8
#: Images on which an exported file is compared with PyTorch.
PARITY_IMAGES = 256


@dataclass(frozen=True)
class FinishJob:
    """One candidate to finish in a worker process.

    Args:
        candidate: Its weights are final.
        folder: The run directory.
        target: Costs the file where it compiles it; a measuring target is asked later, alone.
        formats: Files to export, of ``tflite`` and ``onnx``.
    """

    candidate: Candidate
    folder: Path
    target: Target
    formats: tuple[str, ...]


def finish(bench: Bench, job: FinishJob) -> dict[str, Any]:
    """Export, check and evaluate one candidate.

    A task without calibration inputs gets no int8 file.

    Where the target runs int8 ONNX files, ``onnx`` is the int8 file, quantised with ranges from
    the task's calibration images, and the float file is there as :data:`FLOAT_ONNX`.

    Returns:
        Fields of :class:`Candidate` by name: ``metrics``, ``files``, ``verify`` and, for compiled
        and modelled targets, ``cost``, ``provenance`` and ``layers``.

    Raises:
        ParityError: An exported file does not compute what the network computes.
    """
    from chipfit.export.onnx import to_onnx
    from chipfit.export.parity import verify_int8_onnx, verify_onnx, verify_tflite
    from chipfit.export.tflite import calibrate, to_tflite
    from chipfit.files import write_bytes

    task = bench.task
    net = job.candidate.build(bench.net, job.folder).eval()
    place = job.folder / "candidates" / job.candidate.id
    example = task.example_input()
    program = capture(net, example)
    metrics = dict(job.candidate.metrics)
    metrics[f"test_{task.metric}"] = task.evaluate(net, "test")[task.metric]
    files: dict[str, str] = {}
    verify: dict[str, Any] = {}
    sample = task.parity_inputs(PARITY_IMAGES).numpy()
    if "tflite" in job.formats and task.calibrates:
        batches = task.calibration_batches(CALIBRATION_IMAGES // 64, 64)
        data = to_tflite(program, calibrate(program, batches)).data
        path = place / "model.tflite"
        write_bytes(path, data)
        verify["tflite"] = verify_tflite(path, net, sample, INT8_AGREEMENT).to_json()
        files["tflite"] = str(path.relative_to(job.folder))
        metrics[f"int8_test_{task.metric}"] = file_metric(task, path)
    if "onnx" in job.formats:
        path = place / "model.onnx"
        to_onnx(net, example, path)
        int8 = isinstance(job.target, OnnxTarget) and job.target.precision == "int8"
        form = FLOAT_ONNX if int8 else "onnx"
        verify[form] = verify_onnx(path, net, sample, FLOAT_ERROR).to_json()
        files[form] = str(path.relative_to(job.folder))
        if int8:
            quantised = int8_onnx(task, path, job.target)
            verify["onnx"] = verify_int8_onnx(quantised, net, sample, INT8_AGREEMENT).to_json()
            files["onnx"] = str(quantised.relative_to(job.folder))
            metrics[f"int8_test_{task.metric}"] = file_metric(task, quantised)
    result: dict[str, Any] = {"metrics": metrics, "files": files, "verify": verify}
    if job.target.provenance != "measured":
        name = files.get(job.target.file_format)
        cost = job.target.cost_file(job.folder / name) if name else job.target.cost(program)
        result |= cost_fields(cost, job.target, program.workload)
    return result


def int8_onnx(task: Task, path: Path, target: Target) -> Path:
    """Quantise the float ONNX file at ``path`` for ``target``, and return where the result is."""
    from chipfit.export.onnx_int8 import Int8Scheme, quantise
    from chipfit.files import write_bytes

    scheme = target.scheme if isinstance(target, OnnxTarget) else None
    batches = task.calibration_batches(CALIBRATION_IMAGES // CALIBRATION_BATCH, CALIBRATION_BATCH)
    feeds = ({"input": batch.numpy()} for batch in batches)
    content = quantise(path.read_bytes(), feeds, scheme or Int8Scheme())
    write_bytes(path.with_name("model_int8.onnx"), content)
    return path.with_name("model_int8.onnx")


def file_metric(task: Task, path: Path) -> float:
    """Return the task's metric of a file on the test split, run by its interpreter."""
    from chipfit.export.interpreter import TFLiteModel
    from chipfit.export.onnx_model import OnnxModel

    model = (TFLiteModel if path.suffix == ".tflite" else OnnxModel)(path, threads=1)

    def outputs(inputs: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(model(inputs.numpy()))

    return task.evaluate(outputs, "test")[task.metric]


def cost_fields(cost: NetworkCost, target: Target, workload: Workload) -> dict[str, Any]:
    """Return a network's cost as fields of a candidate.

    MACs and parameters are those of the workload: compilers count other things besides.
    """
    values = {
        **cost.total.values,
        **target.static_cost(workload),
        "macs": workload.macs,
        "params": workload.parameter_count,
    }
    layers = layers_by_node(cost, workload)
    return {
        "cost": values,
        "provenance": cost.total.provenance,
        "spread": dict(cost.total.spread),
        "layers": layers,
    }


def layers_by_node(cost: NetworkCost, workload: Workload) -> list[dict[str, Any]]:
    """Return the layers of a compiled file under the names of the network's operators.

    Compilers split an operator, or name its parts with a suffix; the parts are added up.
    """
    merged: dict[str, dict[str, Any]] = {}
    for layer in cost.layers:
        name = layer.name
        while name not in workload.by_name and "_" in name:
            name = name.rpartition("_")[0]
        node = workload.by_name.get(name)
        if node is None:
            name = layer.name
        entry = merged.setdefault(
            name,
            {
                "name": name,
                "kind": node.op.kind if node else layer.kind,
                "output": list(node.op.output) if node else [],
                "cost": {},
            },
        )
        for key, value in layer.cost.values.items():
            entry["cost"][key] = entry["cost"].get(key, 0) + value
        if node is not None:
            entry["cost"]["macs"] = node.op.macs
    return list(merged.values())


def finish_all(
    candidates: Sequence[Candidate], run: Run, target: Target, table: CostTable, pool: WorkerPool,
    example: torch.Tensor, net: nn.Module, progress: Callable[[str], None],
    calibration: float = 1.0,
) -> list[Candidate]:  # fmt: skip
    """Finish every candidate once, in worker processes, and save it.

    Figures that are measured on this machine are taken afterwards, all candidates in one session,
    so that they compare fairly.
    """
    waiting = [c for c in candidates if run.recall(f"finish/{c.id}") is None]
    jobs = [FinishJob(c, run.folder, target, ("tflite", "onnx")) for c in waiting]
    for number, (i, fields) in enumerate(pool.map(finish, jobs), 1):
        run.record("finish", f"finish/{waiting[i].id}", id=waiting[i].id, fields=fields)
        progress(f"exported and checked {waiting[i].id} ({number} of {len(jobs)})")
    done = []
    for candidate in candidates:
        event = run.recall(f"finish/{candidate.id}") or {}
        workload = trace(replay(net, candidate.edits), example)
        predicted = predict(workload, target, table, calibration, pool=pool).total
        done.append(candidate.with_(**event["fields"], predicted=dict(predicted.values)))
    if any(run.recall(f"measure/{c.id}") is None for c in done):
        progress(f"measuring {len(done)} networks on this CPU, interleaved")
        _measure(done, run, target, net, example)
    finished = []
    for candidate in done:
        event = run.recall(f"measure/{candidate.id}") or {}
        finished.append(candidate.with_(**event["fields"]))
        run.save(finished[-1])
    return finished


def _measure(
    candidates: Sequence[Candidate], run: Run, target: Target, net: nn.Module, example: torch.Tensor
) -> None:
    """Measure all candidates on this CPU in one session, and on a measured target likewise."""
    measured = [target] if target.provenance == "measured" else []
    float_cpu = target.name == "onnxruntime-cpu" and target.precision == "float32"
    cpu = target if float_cpu else create("onnxruntime-cpu")
    results: dict[str, dict[str, Any]] = {c.id: {} for c in candidates}
    for device in dict.fromkeys([cpu, *measured]):
        subjects = [_subject(c, run, device, net, example) for c in candidates]
        for candidate, cost in zip(candidates, device.cost_many(subjects), strict=True):
            if device is cpu:
                spread = cost.total.spread.get("latency_ms", 0.0)
                results[candidate.id]["cpu"] = {
                    "latency_ms": cost.total["latency_ms"], "spread_ms": spread
                }  # fmt: skip
            if device in measured:
                workload = trace(replay(net, candidate.edits), example)
                results[candidate.id] |= cost_fields(cost, device, workload)
    for name, fields in results.items():
        run.record("measure", f"measure/{name}", id=name, fields=fields)


def _subject(
    candidate: Candidate, run: Run, device: Target, net: nn.Module, example: torch.Tensor
) -> Path | Program:
    """Return what ``device`` measures: its own file, or the network where it runs no files."""
    if not device.file_format:
        return capture(candidate.build(net, run.folder).eval(), example)
    kind = device.file_format
    if device.precision == "float32" and FLOAT_ONNX in candidate.files:
        kind = FLOAT_ONNX
    return run.folder / candidate.files[kind]
