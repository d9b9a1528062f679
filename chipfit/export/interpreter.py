# SPDX-License-Identifier: Apache-2.0
"""Run exported files with the interpreters that devices use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from chipfit.errors import BadInput, MissingBackend

_BATCH = 256


def _content(file: Path | str | bytes) -> bytes:
    if isinstance(file, bytes):
        return file
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error


def _litert(data: bytes, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingBackend(
            "running TFLite files needs the ai-edge-litert package",
            "pip install 'chipfit[tflite]'",
        ) from error
    try:
        return Interpreter(model_content=data, num_threads=threads)
    except ValueError as error:
        raise BadInput(f"this is not a TFLite file: {error}") from error


class _Sized:
    """An interpreter at one batch size."""

    def __init__(self, data: bytes, threads: int, batch: int | None = None) -> None:
        self.interpreter = _litert(data, threads)
        details = self.interpreter.get_input_details()
        if len(details) != 1 or len(self.interpreter.get_output_details()) != 1:
            raise BadInput("only files of one input and one output can be run on images")
        self.shape = tuple(int(d) for d in details[0]["shape"])
        self.batch = batch or self.shape[0]
        if self.batch != self.shape[0]:
            self.interpreter.resize_tensor_input(details[0]["index"], (self.batch, *self.shape[1:]))
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.interpreter.set_tensor(self.input["index"], quantise_input(images, self.input))
        self.interpreter.invoke()
        codes = self.interpreter.get_tensor(self.output["index"])
        return dequantise_output(codes, self.output)


def quantise_input(images: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Return float ``images`` (N, C, H, W) as a file wants them: NHWC, in its own type."""
    if images.ndim == 4:
        images = images.transpose(0, 2, 3, 1)
    dtype = np.dtype(details["dtype"])
    if dtype.kind == "f":
        return np.ascontiguousarray(images, dtype)
    scale, zero = details["quantization"]
    limits = np.iinfo(dtype)
    codes = np.round(images.astype(np.float32) / np.float32(scale)) + zero
    return np.ascontiguousarray(np.clip(codes, limits.min, limits.max).astype(dtype))


def dequantise_output(codes: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Return the output of a file as floats; an image comes back as (N, C, H, W)."""
    values = codes.astype(np.float32)
    if np.dtype(details["dtype"]).kind != "f":
        scale, zero = details["quantization"]
        values = (values - np.float32(zero)) * np.float32(scale)
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


class TFLiteModel:
    """A TFLite file of one input and one output, opened once and called on any number of images.

    The file is run on whole batches where it can be resized; whether it can is checked by
    comparing a resized run with a run of the file's own batch size.

    Args:
        file: Path or content.
        threads: Of the interpreter; all cores where not given.

    Raises:
        BadInput: The file cannot be read or has several inputs or outputs.
        MissingBackend: LiteRT is not installed.
    """

    def __init__(self, file: Path | str | bytes, threads: int | None = None) -> None:
        self._data = _content(file)
        self._threads = threads or os.cpu_count() or 1
        self._single = _Sized(self._data, self._threads)
        self._chosen = self._single
        self._resizable = True

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one input in PyTorch's order: ``(C, H, W)`` for images."""
        shape = self._single.shape[1:]
        return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape

    @property
    def input_range(self) -> tuple[float, float]:
        """Lowest and highest value that the input can hold; infinite for a float file."""
        dtype = np.dtype(self._single.input["dtype"])
        if dtype.kind == "f":
            return -np.inf, np.inf
        scale, zero = self._single.input["quantization"]
        limits = np.iinfo(dtype)
        return (limits.min - zero) * float(scale), (limits.max - zero) * float(scale)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs as floats, ``(N, classes)`` or ``(N, C, H, W)``.

        Args:
            images: ``(N, C, H, W)`` floats as the network was trained on.

        Raises:
            BadInput: The file does not take such images.
        """
        images = np.asarray(images)
        if len(images) == 0:
            raise BadInput("there are no images to run")
        if images.shape[1:] != self.image_shape:
            raise BadInput(f"the file takes images of {self.image_shape}, these are "
                           f"{images.shape[1:]}")  # fmt: skip
        batch = min(_BATCH, len(images))
        if self._resizable and batch > self._chosen.batch:
            self._resize(images[:batch])
        results = []
        for start in range(0, len(images), self._chosen.batch):
            part = images[start : start + self._chosen.batch]
            missing = self._chosen.batch - len(part)
            full = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            results.append(self._chosen(full)[: len(part)])
        return np.concatenate(results)

    def _resize(self, images: np.ndarray) -> None:
        count, own = len(images), self._single.batch
        try:
            model = _Sized(self._data, self._threads, count)
            many = model(images)
        except (RuntimeError, ValueError):
            # The file fixes its batch, as one with a constant per image does.
            self._resizable = False
            return
        alone = self._single(images[count - own :])
        step = float(self._single.output["quantization"][0]) or 1e-3
        same = many.shape[1:] == alone.shape[1:] and len(many) == count
        self._resizable = same and float(np.abs(many[count - own :] - alone).max()) <= 3 * step
        if self._resizable:
            self._chosen = model


def run_tflite(
    file: Path | str | bytes, images: np.ndarray, threads: int | None = None
) -> np.ndarray:
    """Run a TFLite file once on ``images`` (N, C, H, W); see :class:`TFLiteModel`."""
    return TFLiteModel(file, threads)(images)


def run_onnx(
    file: Path | str | bytes, images: np.ndarray, threads: int | None = None
) -> np.ndarray:
    """Run an ONNX file of one input with ONNX Runtime on the CPU; returns its first output.

    Args:
        file: Path or content.
        images: ``(N, C, H, W)`` floats.
        threads: Of the runtime; its own default where not given.

    Raises:
        BadInput: The file cannot be read or does not take such images.
        MissingBackend: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingBackend(
            "running ONNX files needs the onnxruntime package", "pip install 'chipfit[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    state = onnxruntime.capi.onnxruntime_pybind11_state
    refusals = (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.Fail)
    if len(images) == 0:
        raise BadInput("there are no images to run")
    try:
        session = onnxruntime.InferenceSession(
            _content(file), options, providers=["CPUExecutionProvider"]
        )
    except refusals as error:
        raise BadInput(f"this is not an ONNX file that can be run: {error}") from error
    entry = session.get_inputs()[0]
    fixed = isinstance(entry.shape[0], int)
    batch = entry.shape[0] if fixed else min(_BATCH, len(images))
    if fixed and len(images) % batch:
        raise BadInput(f"{len(images)} images do not fill the file's batches of {batch}")
    results = []
    for start in range(0, len(images), batch):
        part = np.ascontiguousarray(images[start : start + batch], np.float32)
        try:
            results.append(session.run(None, {entry.name: part})[0])
        except refusals as error:
            raise BadInput(f"the file does not take such images: {error}") from error
    return np.concatenate(results)
