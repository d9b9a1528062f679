# SPDX-License-Identifier: Apache-2.0
"""Versions and machine, written beside every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

from chipfit.machine import cpu_name

#: Packages whose versions can change a result.
PACKAGES = (
    "torch", "numpy", "scipy", "safetensors", "torch-pruning", "ethos-u-vela", "flatbuffers",
    "ai-edge-litert", "tflite-micro", "onnx", "onnxruntime", "openvino", "matplotlib",
)  # fmt: skip


def environment(target: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return versions and machine as JSON-able data."""
    import torch

    import chipfit

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "chipfit": chipfit.__version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "packages": packages,
        "target": dict(target or {}),
    }
