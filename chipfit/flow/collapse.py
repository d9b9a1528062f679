# SPDX-License-Identifier: Apache-2.0
"""``collapse``: merge what is linear in a network, where that makes it cheaper on a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chipfit.cost.cost import Cost
from chipfit.cost.location import default_table_path
from chipfit.cost.predict import predict_total
from chipfit.cost.table import CostTable
from chipfit.errors import ParityError, UnsupportedOp
from chipfit.flow.calibration import ensure_calibrated
from chipfit.flow.network import InputShape, load_network
from chipfit.graph.capture import Example, capture, trace
from chipfit.graph.workload import Workload
from chipfit.rewrite.collapse import Step, collapse_steps
from chipfit.targets import Target, create

#: Keys by which a target's networks are compared, the first that it knows.
KEYS = ("latency_ms", "cycles", "macs")
#: Largest error of the collapsed network in float32, relative to the largest output.
TOLERANCE = 1e-4
#: Random images that set the ranges of a TFLite file.
RANGE_IMAGES = 8


class PredictedCost:
    """The cost of any network on a target, as the cost table predicts it: a callable.

    Args:
        target: The device.
        table: Keeps prices; it is calibrated for the target first where it never was.
        example: What the network is called with.
        progress: Called with lines about a calibration.
    """

    def __init__(
        self,
        target: Target,
        table: CostTable,
        example: Example,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.target, self.table, self.example = target, table, example
        self._model = ensure_calibrated(target, table, progress)
        self._known: dict[str, float] = {}
        self.key = ""

    def of(self, workload: Workload) -> Cost:
        """Return what is predicted for ``workload``, MACs included.

        Raises:
            UnsupportedOp: The target refuses an operator.
        """
        self.target.check(workload)
        cost = predict_total(workload, self.target, self.table, self._model)
        return Cost({**cost.values, "macs": workload.macs}, cost.provenance)

    def __call__(self, net: nn.Module) -> float:
        """Return the cost of ``net`` in the unit :attr:`key`; infinite where it cannot run.

        The first network decides the unit, and is not forgiven what the target refuses.

        Raises:
            UnsupportedOp: The target refuses an operator of the first network.
        """
        workload = trace(net, self.example)
        if workload.key not in self._known:
            try:
                cost = self.of(workload)
            except UnsupportedOp:
                if not self.key:
                    raise
                return math.inf
            self.key = self.key or next(key for key in KEYS if key in cost)
            self._known[workload.key] = cost[self.key]
        return self._known[workload.key]


@dataclass(frozen=True)
class Collapse:
    """What collapsing a network did.

    Args:
        network: Its name.
        target: Name of the target.
        fingerprint: Everything the cost depends on besides the network.
        net: The collapsed network; equal to the original in evaluation mode.
        key: What the steps' costs are, with the unit: ``"latency_ms"``, ``"cycles"`` or ``"macs"``.
        steps: What was done, with the predicted cost of the whole network before and after.
        before: Cost of the original, compiled, measured or modelled as a whole.
        after: The same of the collapsed network.
        max_abs_error: Largest difference of the outputs on a random input, in float32.
        operators: Fused operators before and after.
        files: What was written, by format.
        notes: What to know about the files.
    """

    network: str
    target: str
    fingerprint: str
    net: nn.Module = field(repr=False)
    key: str
    steps: tuple[Step, ...]
    before: Cost
    after: Cost
    max_abs_error: float
    operators: tuple[int, int]
    files: dict[str, Path]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit collapse --json`` prints."""
        return {
            "network": self.network, "target": self.target, "fingerprint": self.fingerprint,
            "key": self.key,
            "steps": [
                {"kind": s.kind, "modules": list(s.modules), "into": list(s.into),
                 "before": s.before, "after": s.after}
                for s in self.steps
            ],
            "provenance": self.before.provenance, "before": dict(self.before.values),
            "after": dict(self.after.values), "operators": list(self.operators),
            "max_abs_error": self.max_abs_error,
            "files": {kind: str(path) for kind, path in self.files.items()},
            "notes": list(self.notes),
        }  # fmt: skip


def collapse(
    net: str | nn.Module,
    target: str | Target,
    input_shape: InputShape | None = None,
    *,
    weights: str | Path | None = None,
    table: str | Path | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Collapse:
    """Merge batch norms, linear sequences and branches of ``net`` where ``target`` gains by it.

    Every merger is exact in evaluation mode, borders included, and kept only where the predicted
    cost of the whole network falls. The result runs on inputs of ``input_shape`` only: where a
    convolution pads what another has shifted, a constant map is added at the borders.

    Args:
        net: A module, or a name as on the command line.
        target: A target or its name.
        input_shape: ``(1, C, H, W)``; the network's own where it has one, else 1,3,224,224.
        weights: A safetensors file for a network built by name.
        table: Path of the cost table; the user's own where ``None``.
        output: Folder for the collapsed network: ``collapsed.onnx``, or ``collapsed.tflite`` where
            the target runs that. Nothing is written where ``None``, or where it runs no files.
        seed: Of the weights of a network built by name.
        progress: Called with lines about what is being done.

    Raises:
        UnsupportedOp: The target cannot run an operator of the network.
        UnknownName: No such network or target.
        ParityError: The result computes something else.
        MissingBackend: A package that writes the file is not installed.
    """
    chosen = create(target) if isinstance(target, str) else target
    loaded = load_network(net, input_shape=input_shape, weights=weights, seed=seed)
    example = loaded.examples()
    program = capture(loaded.net, example)
    chosen.check(program.workload)
    with CostTable(table or default_table_path()) as prices:
        cost = PredictedCost(chosen, prices, example, progress)
        done = collapse_steps(loaded.net, example, cost, fixed_size=True)
    result = capture(done.net, example)
    costs = chosen.cost_many([program, result])
    before, after = (
        Cost({"macs": p.workload.macs, "params": p.workload.parameter_count, **c.total.values},
             c.total.provenance, c.total.spread)
        for p, c in zip((program, result), costs, strict=True)
    )  # fmt: skip
    files: dict[str, Path] = {}
    notes: tuple[str, ...] = ()
    if output is not None:
        files, notes = _write(done.net, chosen, example, Path(output))
    return Collapse(
        loaded.name, chosen.name, chosen.fingerprint, done.net, cost.key, done.steps, before, after,
        _error(loaded.net, done.net, example), (len(program.workload), len(result.workload)),
        files, notes,
    )  # fmt: skip


def _error(net: nn.Module, other: nn.Module, example: tuple[torch.Tensor, ...]) -> float:
    from chipfit.graph.run import output_tensors

    modes = [(part, part.training) for part in (*net.modules(), *other.modules())]
    net.eval()
    other.eval()
    try:
        with torch.no_grad():
            expected = output_tensors(net(*(x.clone() for x in example)))
            found = output_tensors(other(*(x.clone() for x in example)))
    finally:
        for part, training in modes:
            part.training = training
    error = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
    largest = max(float(a.abs().max()) for a in expected)
    if error > TOLERANCE * largest:
        raise ParityError(
            f"the collapsed network is off by {error:.3g} of {largest:.3g}",
            "collapse it in float64, where the difference shows what is rounding",
        )
    return error


def _write(
    net: nn.Module, target: Target, example: tuple[torch.Tensor, ...], folder: Path
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Write the file that the target runs."""
    if target.file_format == "onnx":
        from chipfit.export.onnx import to_onnx

        note = f"{target.name} quantises the float file itself" * (target.precision == "int8")
        return {"onnx": to_onnx(net, example, folder / "collapsed.onnx")}, (note,) * bool(note)
    if target.file_format == "tflite":
        from chipfit.export.tflite import calibrate, to_tflite

        program = capture(net, example)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(RANGE_IMAGES, *example[0].shape[1:], generator=generator)
        path = folder / "collapsed.tflite"
        to_tflite(program, calibrate(program, [images])).save(path)
        return {"tflite": path}, (
            "the int8 ranges come from random inputs: they tell the cost, not the accuracy",
        )
    return {}, (f"{target.name} runs no files: nothing was written",)
