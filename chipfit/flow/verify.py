# SPDX-License-Identifier: Apache-2.0
"""``verify``: does an exported file compute what its network computes, and what does it cost?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput, ParityError
from chipfit.flow.data import open_task
from chipfit.flow.finalise import FLOAT_ERROR, INT8_AGREEMENT, PARITY_IMAGES
from chipfit.flow.network import load_network
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.targets.base import NetworkCost


@dataclass(frozen=True)
class Verification:
    """What was found out about a file.

    Args:
        file: Its path.
        target: Name of the target.
        cost: Compiled or measured from the file.
        predicted: From the cost table, where the file belongs to a run.
        max_abs_error: Against PyTorch, where there is a network to compare with.
        top1_agreement: Share of images with the same class.
        fallbacks: Operators that do not run on the accelerator; today's targets refuse such
            files with an error that names them, so it is empty.
        reference: What the file was compared with, and on which images.
    """

    file: Path
    target: str
    cost: NetworkCost
    predicted: dict[str, float] = field(default_factory=dict)
    max_abs_error: float | None = None
    top1_agreement: float | None = None
    fallbacks: tuple[str, ...] = ()
    reference: str = ""

    def errors(self) -> dict[str, float]:
        """Return ``predicted / real - 1`` for every key that both know."""
        total = self.cost.total
        return {k: v / total[k] - 1 for k, v in self.predicted.items() if total.get(k)}

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit verify --json`` prints."""
        return {
            "file": str(self.file), "target": self.target, "cost": dict(self.cost.total.values),
            "provenance": self.cost.total.provenance, "spread": dict(self.cost.total.spread),
            "predicted": self.predicted, "prediction_error": self.errors(),
            "max_abs_error": self.max_abs_error, "top1_agreement": self.top1_agreement,
            "fallbacks": list(self.fallbacks), "reference": self.reference,
            "layers": [
                {"name": layer.name, "kind": layer.kind, "cost": dict(layer.cost.values)}
                for layer in self.cost.layers
            ],
        }  # fmt: skip


def verify(file: str | Path, target: str | Target, against: str | None = None) -> Verification:
    """Re-cost a file on a target and compare it with the network it was exported from.

    Args:
        file: A ``.tflite`` or ``.onnx`` file.
        target: A target that runs such files, or its name.
        against: ``RUN:ID``, the member of a run that the file was exported from.

    Raises:
        BadInput: The file is missing or is not of the target's format.
        ParityError: The file does not compute what the network computes.
        UnsupportedOp: Part of it would not run on the accelerator; the operators are named.
    """
    path = Path(file)
    chosen = create(target) if isinstance(target, str) else target
    kind = path.suffix.lstrip(".")
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    if kind != chosen.file_format:
        raise BadInput(
            f"{chosen.name} runs .{chosen.file_format or '(none)'} files, not {path.name}",
            "choose a target of that format, see chipfit targets",
        )
    fields: dict[str, Any] = {}
    if against is not None:
        fields = _compare(path, kind, *_member(against))
    return Verification(path, chosen.name, chosen.cost_file(path), **fields)


def _member(against: str) -> tuple[Run, Candidate]:
    folder, colon, name = against.rpartition(":")
    if not colon:
        raise BadInput(f"cannot read {against!r}", "write --against RUN_DIRECTORY:MEMBER")
    run = Run.read(folder)
    return run, run.candidate(name)


def _compare(path: Path, kind: str, run: Run, candidate: Candidate) -> dict[str, Any]:
    from chipfit.export.parity import verify_onnx, verify_tflite

    config = run.config
    loaded = load_network(
        config["network"], input_shape=tuple(config["input_shape"]),
        num_classes=config.get("num_classes"), seed=config["seed"],
    )  # fmt: skip
    net = candidate.build(loaded.net, run.folder).eval()
    images = _images(run)
    check = verify_tflite if kind == "tflite" else verify_onnx
    limit = INT8_AGREEMENT if kind == "tflite" else FLOAT_ERROR
    parity = check(path, net, images, limit)
    return {
        "predicted": dict(candidate.predicted),
        "max_abs_error": parity.max_abs_error,
        "top1_agreement": parity.top1_agreement,
        "reference": f"{candidate.id} in PyTorch on {len(images)} images of {config['task']}",
    }


def _images(run: Run) -> NDArray[np.float32]:
    spec = run.config.get("task_spec")
    if not spec:
        raise BadInput(
            f"the run {run.folder} was started with a task made in Python",
            "compare in Python: chipfit.export.parity.verify_tflite(file, module, images)",
        )
    task = open_task(spec, tuple(run.config["input_shape"]))
    batches = task.calibration_batches(PARITY_IMAGES)
    return np.concatenate([batch.numpy() for batch in batches])


__all__ = ["ParityError", "Verification", "verify"]
