# SPDX-License-Identifier: Apache-2.0
"""Tasks by name: a data set, or a user's own Python file or module."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from chipfit.errors import BadTask, ChipfitError
from chipfit.tasks.base import Task
from chipfit.tasks.classification import classification
from chipfit.tasks.data.registry import DATASETS

#: Called where no name stands behind the colon.
DEFAULT_FACTORY = "make_task"


def load_task(spec: str, image_size: tuple[int, int] | None = None) -> Task:
    """Make the task that ``spec`` names.

    Args:
        spec: A data set (``digits``, ``imagefolder:DIR``), ``path/to/task.py:factory`` or
            ``package.module:factory``. Without ``:factory`` a file's function ``make_task`` is
            called. The factory takes no arguments.
        image_size: ``(H, W)``, for ``imagefolder`` only.

    Raises:
        UnknownName: It is neither a data set nor looks like a file or module.
        DataUnavailable: The data set is neither cached nor reachable.
        BadTask: The file, module or factory is missing or fails, or makes no :class:`Task`.
    """
    if spec.partition(":")[0] in DATASETS or not (".py" in spec or ":" in spec):
        return classification(spec, image_size=image_size)
    place, _, name = spec.rpartition(":") if _names_factory(spec) else (spec, "", "")
    name = name or DEFAULT_FACTORY
    module = _module(place)
    factory = getattr(module, name, None)
    if factory is None:
        raise BadTask(f"{place} defines no {name!r}", f"define {name}() or write {place}:NAME")
    try:
        task = factory()
    except ChipfitError:
        raise
    except Exception as error:
        raise BadTask(f"{spec}: {name}() failed: {type(error).__name__}: {error}") from error
    _check(spec, task)
    absolute = str(Path(place).resolve()) if place.endswith(".py") else place
    return task.made_by(load_task, f"{absolute}:{name}")


def _names_factory(spec: str) -> bool:
    _, colon, name = spec.rpartition(":")
    return bool(colon) and name.isidentifier()


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise BadTask(
                f"module {place!r} cannot be imported: {error}", "write path/to/task.py:factory"
            ) from error
    path = Path(place).resolve()
    if not path.is_file():
        raise BadTask(f"task file {place} does not exist", "check the path")
    # Named after its path, so that two files called task.py do not meet in sys.modules.
    name = f"chipfit_task_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadTask(f"task file {place} is not Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, ChipfitError):
            raise
        raise BadTask(
            f"task file {place} cannot be run: {type(error).__name__}: {error}"
        ) from error
    return module


def _check(spec: str, task: Any) -> None:
    if not isinstance(task, Task):
        raise BadTask(
            f"{spec} made a {type(task).__name__}, not a Task", "subclass chipfit.tasks.Task"
        )
    shape = getattr(task, "input_shape", None)
    if not getattr(task, "name", None) or not isinstance(shape, tuple) or len(shape) != 4:
        raise BadTask(f"the task of {spec} lacks a name or an input_shape (1, C, H, W)")
