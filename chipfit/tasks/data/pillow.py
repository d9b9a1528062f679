# SPDX-License-Identifier: Apache-2.0
"""Pillow, imported when an image file is to be decoded."""

from __future__ import annotations

import importlib
from types import ModuleType

from chipfit.errors import MissingBackend


def pillow() -> ModuleType:
    """Return the package ``PIL`` with its modules ``Image`` and ``ImageOps`` loaded.

    Raises:
        MissingBackend: Pillow is not installed.
    """
    try:
        for name in ("PIL.Image", "PIL.ImageOps"):
            importlib.import_module(name)
    except ImportError as error:
        raise MissingBackend(
            f"image files need Pillow: {error}", "pip install 'chipfit[images]'"
        ) from error
    return importlib.import_module("PIL")
