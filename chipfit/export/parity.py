# SPDX-License-Identifier: Apache-2.0
"""Compare an exported file, run by its own interpreter, with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from chipfit.errors import BadInput, ParityError
from chipfit.export.interpreter import run_onnx, run_tflite

_BATCH = 256


@dataclass(frozen=True)
class Parity:
    """How far two sets of outputs are apart.

    Args:
        max_abs_error: Largest absolute difference, in the unit of the outputs.
        mean_abs_error: Mean absolute difference.
        top1_agreement: Share of images with the same largest output along axis 1, in [0, 1].
        output_span: Highest minus lowest reference output.
    """

    max_abs_error: float
    mean_abs_error: float
    top1_agreement: float
    output_span: float = 0.0

    @property
    def relative_error(self) -> float:
        """Mean absolute error as a share of the span of the reference outputs."""
        return self.mean_abs_error / self.output_span if self.output_span else 0.0

    def to_json(self) -> dict[str, float]:
        """Return a JSON-able form."""
        return asdict(self)


def compare(reference: np.ndarray, outputs: np.ndarray) -> Parity:
    """Compare two arrays of outputs ``(N, classes, ...)``.

    Raises:
        BadInput: Their shapes differ, or they are empty.
    """
    reference, outputs = np.asarray(reference, np.float64), np.asarray(outputs, np.float64)
    if reference.shape != outputs.shape or reference.size == 0:
        raise BadInput(f"outputs of shapes {reference.shape} and {outputs.shape} do not compare")
    error = np.abs(reference - outputs)
    if reference.ndim > 1:
        agreement = float((reference.argmax(1) == outputs.argmax(1)).mean())
    else:
        agreement = float((reference == outputs).mean())
    span = float(reference.max() - reference.min())
    return Parity(float(error.max()), float(error.mean()), agreement, span)


def run_torch(module: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the outputs of ``module`` in eval mode on ``images`` (N, C, H, W), in batches."""
    training = module.training
    module.eval()
    results = []
    reference = next(module.parameters(), torch.zeros(()))
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            part = torch.as_tensor(np.asarray(images[start : start + _BATCH], np.float32))
            results.append(module(part.to(reference.device)).float().cpu().numpy())
    module.train(training)
    return np.concatenate(results)


def verify_onnx(
    path: Path | bytes, module: nn.Module, images: np.ndarray, tolerance: float = 1e-3
) -> Parity:
    """Check that an ONNX file computes what ``module`` computes.

    Args:
        path: The file, or its content.
        module: The original.
        images: ``(N, C, H, W)`` floats.
        tolerance: Allowed absolute error, as a share of the largest output but at least of one.

    Raises:
        ParityError: An output differs by more.
    """
    reference = run_torch(module, images)
    parity = compare(reference, run_onnx(path, images))
    allowed = tolerance * max(1.0, float(np.abs(reference).max()))
    if not parity.max_abs_error <= allowed:
        raise ParityError(
            f"{_label(path)} differs from PyTorch by up to {parity.max_abs_error:.3g} "
            f"(allowed {allowed:.3g})",
            "was the network changed after it was exported?",
        )
    return parity


def verify_tflite(
    path: Path | bytes, module: nn.Module, images: np.ndarray, minimum_agreement: float = 0.9
) -> Parity:
    """Check that an int8 TFLite file decides as ``module`` does; see :func:`verify_int8_onnx`."""
    return _agreement(path, run_tflite, module, images, minimum_agreement)


def verify_int8_onnx(
    path: Path | bytes, module: nn.Module, images: np.ndarray, minimum_agreement: float = 0.9
) -> Parity:
    """Check that an int8 ONNX file decides as ``module`` does.

    Args:
        path: The file, or its content.
        module: The original.
        images: ``(N, C, H, W)`` floats.
        minimum_agreement: Least share of images with the same largest output. Networks that put
            out images are judged by the mean error instead, which may reach
            ``1 - minimum_agreement`` of the span of the outputs.

    Raises:
        ParityError: The file agrees less often.
    """
    return _agreement(path, run_onnx, module, images, minimum_agreement)


def _agreement(
    path: Path | bytes, run: Callable[[Path | bytes, np.ndarray], np.ndarray], module: nn.Module,
    images: np.ndarray, minimum_agreement: float,
) -> Parity:  # fmt: skip
    reference = run_torch(module, images)
    parity = compare(reference, run(path, images))
    agreement = parity.top1_agreement
    if reference.ndim != 2:
        agreement = 1.0 - parity.relative_error
    if not agreement >= minimum_agreement:
        raise ParityError(
            f"{_label(path)} agrees with PyTorch on {agreement:.1%} of the images "
            f"(at least {minimum_agreement:.1%} wanted)",
            "calibrate with more images, or train with quantisation in the loop",
        )
    return parity


def _label(path: Path | bytes) -> str:
    return "the file" if isinstance(path, bytes) else str(path)
