# SPDX-License-Identifier: Apache-2.0
"""Importing what a user points at: ``package.module`` or ``path/to/file.py``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cloudpickle

from chipfit.errors import BadInput, ChipfitError


def load_module(place: str, error_type: type[ChipfitError] = BadInput) -> ModuleType:
    """Import a module by dotted name, or a file by path.

    Args:
        place: ``package.module`` or ``path/to/file.py``.
        error_type: Raised, with the reason, where that fails.
    """
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise error_type(
                f"module {place!r} cannot be imported: {error}",
                "write package.module:factory or path/to/file.py:factory",
            ) from error
    path = Path(place).resolve()
    if not path.is_file():
        raise error_type(f"there is no file {place}", "check the path")
    # Named after its path, so that two files of one name do not meet in sys.modules.
    name = f"chipfit_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error_type(f"{place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        del sys.modules[name]
        if isinstance(error, ChipfitError):
            raise
        raise error_type(f"{place} cannot be run: {type(error).__name__}: {error}") from error
    # Worker processes cannot import a file by the name made up here: they get its code.
    cloudpickle.register_pickle_by_value(module)
    return module
