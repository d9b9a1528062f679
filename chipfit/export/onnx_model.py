# SPDX-License-Identifier: Apache-2.0
"""An ONNX file of one input, opened once and called on any number of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chipfit.errors import BadInput, MissingBackend

#: Images per run: enough to keep the cores busy, and little beside the weights.
_BATCH = 64


class OnnxModel:
    """A file with a free batch axis, run by ONNX Runtime on the CPU.

    Args:
        path: The file.
        threads: Of the runtime; its own default where not given.

    Raises:
        BadInput: The file cannot be read, or has several inputs.
        MissingBackend: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
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
        try:
            content = path.read_bytes()
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exception classes share no public base
            raise BadInput(f"{path} is not an ONNX file that can be run: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or isinstance(inputs[0].shape[0], int):
            raise BadInput(f"{path} does not have one input with a free batch axis")
        self._name = inputs[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the first output for ``images`` ``(N, C, H, W)``, as floats.

        Raises:
            BadInput: There are no images.
        """
        if len(images) == 0:
            raise BadInput("there are no images to run")
        values = np.ascontiguousarray(images, np.float32)
        parts = [
            self._session.run(None, {self._name: values[start : start + _BATCH]})[0]
            for start in range(0, len(values), _BATCH)
        ]
        return np.concatenate(parts)
