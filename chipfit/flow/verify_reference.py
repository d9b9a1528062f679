# SPDX-License-Identifier: Apache-2.0
"""What an exported file is compared with: a member of a run, or a network by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from chipfit.errors import BadInput, ParityError, UnknownName
from chipfit.export.interpreter import TFLiteModel, run_onnx, run_tflite
from chipfit.export.parity import Parity, compare, run_torch, verify_onnx, verify_tflite
from chipfit.flow.data import open_task
from chipfit.flow.finalise import FLOAT_ERROR, INT8_AGREEMENT, PARITY_IMAGES
from chipfit.flow.network import load_network
from chipfit.runs.run import Run

#: Random inputs that a file is compared on where there are no data.
RANDOM_INPUTS = 16
#: Largest error of an int8 file on them, root mean square, as a share of the outputs' standard
#: deviation. Quantisation costs a few per cent; the outputs of an unrelated network differ by 1.4.
RANDOM_ERROR = 0.5


@dataclass(frozen=True)
class Reference:
    """A network and the inputs to compare on.

    Args:
        net: In evaluation mode.
        inputs: ``(N, C, H, W)`` floats.
        text: What it is, and which inputs.
        random: Whether the inputs are random, so that classes mean nothing.
        predicted: What its run predicted; empty where there is none.
        target: Name of the target that it predicted for.
    """

    net: nn.Module
    inputs: NDArray[np.float32]
    text: str
    random: bool
    predicted: Mapping[str, float] = field(default_factory=dict)
    target: str = ""


def open_reference(against: str, file: Path) -> Reference:
    """Return what ``against`` names.

    Args:
        against: ``RUN:ID``, the member of a run, or ``NET[@WEIGHTS.safetensors]``.
        file: The exported file; tells the shapes of a network that is named.

    Raises:
        BadInput: There is no such run, member or file, or it does not fit.
        UnknownName: No such network.
    """
    folder, colon, name = against.rpartition(":")
    if colon and Path(folder).is_dir():
        return _member(Run.read(folder), name)
    spec, at, weights = against.rpartition("@")
    if not at or not weights.endswith(".safetensors"):
        spec, weights = against, ""
    shape, classes = _shapes(file)
    try:
        loaded = load_network(spec, input_shape=shape, num_classes=classes, weights=weights or None)
    except (BadInput, UnknownName) as error:
        error.hint = f"{error.hint}; --against takes RUN_DIRECTORY:MEMBER or NET[@weights]"
        raise
    inputs = _random_inputs(file, shape)
    return Reference(
        loaded.net.eval(), inputs,
        f"{spec} with {weights or 'fresh weights'} in PyTorch on {len(inputs)} random inputs", True,
    )  # fmt: skip


def check_parity(file: Path, reference: Reference, precision: str) -> Parity:
    """Compare a file's outputs with its network's.

    Args:
        file: A ``.tflite`` or ``.onnx`` file.
        reference: What it was exported from.
        precision: Of the file; decides what error is allowed.

    Raises:
        ParityError: The file computes something else.
    """
    tflite = file.suffix == ".tflite"
    if not tflite and precision != "int8":
        return verify_onnx(file, reference.net, reference.inputs, FLOAT_ERROR)
    if tflite and not reference.random:
        return verify_tflite(file, reference.net, reference.inputs, INT8_AGREEMENT)
    outputs = (run_tflite if tflite else run_onnx)(file, reference.inputs)
    wanted = run_torch(reference.net, reference.inputs)
    parity = compare(wanted, outputs)
    error = float(np.sqrt(np.mean((wanted - outputs) ** 2)))
    allowed = RANDOM_ERROR * float(wanted.std())
    if not error <= allowed:
        raise ParityError(
            f"{file} differs from {reference.text} by {error:.3g} (root mean square), more than"
            f" half of the outputs' standard deviation ({allowed:.3g} allowed)",
            "was it exported from this network, with these weights?",
        )
    return parity


def _member(run: Run, name: str) -> Reference:
    candidate = run.candidate(name)
    config = run.config
    loaded = load_network(
        config["network"], input_shape=tuple(config["input_shape"]),
        num_classes=config.get("num_classes") or None, seed=config["seed"],
    )  # fmt: skip
    net = candidate.build(loaded.net, run.folder).eval()
    spec = config.get("task_spec")
    if not spec:
        raise BadInput(
            f"the run {run.folder} was started with a task made in Python",
            "compare in Python: chipfit.export.parity.verify_tflite(file, module, images)",
        )
    task = open_task(spec, tuple(config["input_shape"]))
    images = np.concatenate([b.numpy() for b in task.calibration_batches(PARITY_IMAGES)])
    text = f"{candidate.id} in PyTorch on {len(images)} images of {config['task']}"
    return Reference(net, images, text, False, dict(candidate.predicted), config["target"])


def _shapes(file: Path) -> tuple[tuple[int, ...], int | None]:
    """Return the file's input shape ``(1, C, H, W)`` and the length of its output, if a vector."""
    if file.suffix == ".tflite":
        model = TFLiteModel(file)
        output = model(np.zeros((1, *model.image_shape), np.float32)).shape
        return (1, *model.image_shape), output[1] if len(output) == 2 else None
    import onnx

    try:
        graph = onnx.load(str(file)).graph
        sides = [
            [dim.dim_value or 1 for dim in side[0].type.tensor_type.shape.dim]
            for side in (graph.input, graph.output)
        ]
    except Exception as error:  # protobuf's exception classes differ between versions
        raise BadInput(f"{file} is not an ONNX model") from error
    return (1, *sides[0][1:]), sides[1][1] if len(sides[1]) == 2 else None


def _random_inputs(file: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw inputs that the file can represent: int8 files clip what lies outside their range."""
    generator = np.random.default_rng(0)
    size = (RANDOM_INPUTS, *shape[1:])
    low, high = (-1.0, 1.0)
    if file.suffix == ".tflite":
        low, high = TFLiteModel(file).input_range
    if not (np.isfinite(low) and np.isfinite(high)):
        return generator.standard_normal(size).astype(np.float32)
    return generator.uniform(low, high, size).astype(np.float32)
