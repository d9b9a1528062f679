# SPDX-License-Identifier: Apache-2.0
"""Tasks by name: a data set, or a user's own Python file or module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from chipfit.errors import BadTask, ChipfitError
from chipfit.tasks.base import Task
from chipfit.tasks.classification import classification
from chipfit.tasks.data.registry import DATASETS
from chipfit.tasks.own_loop import OPTIONAL, OwnLoop
from chipfit.user_code import load_module

#: Called where no name stands behind the colon.
DEFAULT_FACTORY = "make_task"
#: Called where a file has no factory: its two functions make a task.
OWN_LOOP = ("evaluate", "finetune")


def load_task(spec: str, image_size: tuple[int, int] | None = None) -> Task:
    """Make the task that ``spec`` names.

    Args:
        spec: A data set (``digits``, ``imagefolder:DIR``), ``path/to/task.py:factory`` or
            ``package.module:factory``. Without ``:factory`` a file's function ``make_task`` is
            called; it takes no arguments. A file without one may define ``evaluate(model)`` and
            ``finetune(model, steps)`` instead (:class:`chipfit.tasks.own_loop.OwnLoop`).
        image_size: ``(H, W)``, for ``imagefolder`` only.

    Raises:
        UnknownName: It is neither a data set nor looks like a file or module.
        DataUnavailable: The data set is neither cached nor reachable.
        BadTask: The file, module or factory is missing or fails, or makes no :class:`Task`.
    """
    if spec.partition(":")[0] in DATASETS or not (".py" in spec or ":" in spec):
        return classification(spec, image_size=image_size)
    place, _, name = spec.rpartition(":") if _names_factory(spec) else (spec, "", "")
    named, name = bool(name), name or DEFAULT_FACTORY
    module = load_module(place, BadTask)
    factory = getattr(module, name, None)
    if factory is None and not named:
        factory = _own_loop(module, Path(place).stem)
    if factory is None:
        raise BadTask(
            f"{place} defines no {name!r}",
            f"define {name}() or evaluate(model) and finetune(model, steps), or name {place}:NAME",
        )
    try:
        task = factory()
    except ChipfitError:
        raise
    except Exception as error:
        raise BadTask(f"{spec}: {name}() failed: {type(error).__name__}: {error}") from error
    _check(spec, task)
    absolute = str(Path(place).resolve()) if place.endswith(".py") else place
    return task.made_by(load_task, f"{absolute}:{name}" if named else absolute)


def _own_loop(module: ModuleType, name: str) -> Callable[[], Task] | None:
    evaluate, finetune = (getattr(module, wanted, None) for wanted in OWN_LOOP)
    if not callable(evaluate) or not callable(finetune):
        return None
    settings = {key: getattr(module, key) for key in OPTIONAL if hasattr(module, key)}
    return lambda: OwnLoop(name, evaluate, finetune, **settings)


def _names_factory(spec: str) -> bool:
    _, colon, name = spec.rpartition(":")
    return bool(colon) and name.isidentifier()


def _check(spec: str, task: Any) -> None:
    if not isinstance(task, Task):
        raise BadTask(
            f"{spec} made a {type(task).__name__}, not a Task", "subclass chipfit.tasks.Task"
        )
    shape = getattr(task, "input_shape", None)
    if not getattr(task, "name", None) or not isinstance(shape, tuple) or len(shape) != 4:
        raise BadTask(f"the task of {spec} lacks a name or an input_shape (1, C, H, W)")
