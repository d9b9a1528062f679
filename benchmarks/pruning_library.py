# SPDX-License-Identifier: Apache-2.0
"""Importing Torch-Pruning without what it would like to see, but is not needed here."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def torch_pruning() -> ModuleType:
    """Return Torch-Pruning, imported as if timm were absent.

    It asks for timm within an ``except`` of everything: an interrupt that arrives during those
    seconds would be lost, and the run would go on. Only its counter of operations uses timm.
    """
    if "torch_pruning" not in sys.modules and "timm" not in sys.modules:
        sys.modules["timm"] = None  # type: ignore[assignment]
        try:
            return importlib.import_module("torch_pruning")
        finally:
            del sys.modules["timm"]
    return importlib.import_module("torch_pruning")
