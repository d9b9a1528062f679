# SPDX-License-Identifier: Apache-2.0
"""Export an ``nn.Module`` to ONNX, float32, with a free batch axis."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from chipfit.errors import MissingBackend, UnsupportedOp
from chipfit.export.onnx_padding import fold_padding
from chipfit.files import write_bytes

OPSET = 18


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = {name: part.training for name, part in module.named_modules()}
    module.eval()
    try:
        yield
    finally:
        for name, part in module.named_modules():
            part.training = training[name]


Example = torch.Tensor | Sequence[torch.Tensor]


def to_onnx_bytes(module: nn.Module, example: Example) -> bytes:
    """Return ``module`` as the content of an ONNX file; its mode is restored afterwards.

    Inputs are called ``input``, ``input_1`` and so on, outputs ``output``, ``output_1`` and so
    on; axis 0 of all of them is the free axis ``batch``.

    Args:
        module: Any traceable module, a :class:`~chipfit.graph.execute.WorkloadModule` included.
        example: One batch of inputs, ``(N, C, H, W)``, or a sequence of inputs.

    Raises:
        MissingBackend: The onnx package is not installed.
        UnsupportedOp: PyTorch's exporter has no translation for an operator.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingBackend(
            "writing ONNX files needs the onnx package", "pip install 'chipfit[onnx]'"
        ) from error
    buffer = io.BytesIO()
    with _evaluating(module), torch.no_grad(), _quiet():
        given = (example,) if isinstance(example, torch.Tensor) else tuple(example)
        result = module(*given)
        inputs = _numbered("input", len(given))
        outputs = _numbered("output", 1 if isinstance(result, torch.Tensor) else len(result))
        try:
            torch.onnx.export(
                module,
                given,
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                do_constant_folding=True,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
            )
        except torch.onnx.errors.UnsupportedOperatorError as error:
            raise UnsupportedOp(f"ONNX export: {error}") from error
    return fold_padding(buffer.getvalue())


def _numbered(name: str, count: int) -> list[str]:
    return [name, *(f"{name}_{i}" for i in range(1, count))]


def to_onnx(module: nn.Module, example: Example, path: Path) -> Path:
    """Write ``module`` to ``path`` as ONNX, all of it or nothing; see :func:`to_onnx_bytes`.

    Raises:
        StorageError: The file cannot be written.
    """
    write_bytes(Path(path), to_onnx_bytes(module, example))
    return Path(path)
