# SPDX-License-Identifier: Apache-2.0
"""Settings of a fit, and the configuration that a run directory remembers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chipfit.cost.budget import Budget
from chipfit.errors import BadInput, UnknownName
from chipfit.flow.network import LoadedNetwork
from chipfit.methods.base import Method
from chipfit.targets import Target
from chipfit.tasks import Task
from chipfit.train.recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """Options of :func:`fit` that have defaults.

    Args:
        method: A name from ``chipfit methods``.
        method_options: The method's own options.
        seed: Everything random derives from it.
        epochs: Epochs of the original's training; ``None`` for the task's recipe, 0 for none.
        recovery_epochs: Epochs of the long-term fine-tune of every member.
        members: How many networks of the search to keep, evenly over the cost; the last is one.
        weights: Safetensors file of a trained original, or ``imagenet``, whose classifier is drawn
            anew and trained with the rest where the task has other classes.
        input_shape: ``(1, C, H, W)`` where it is not the data's.
        keep: Prefixes of modules whose widths stay.
        workers: Worker processes; results do not depend on it. ``None``: one a core.
        table: Path of the cost table; ``None`` for the user's own, shared by all runs.
        command: What the user typed, for the report.
    """

    method: str = "auto"
    method_options: Mapping[str, Any] | None = None
    seed: int = 0
    epochs: float | None = None
    recovery_epochs: float = 2.0
    members: int = 7
    weights: str | Path | None = None
    input_shape: tuple[int, ...] | None = None
    keep: Sequence[str] = ()
    workers: int | None = None
    table: str | Path | None = None
    command: str = ""


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Return the settings given by name.

    Raises:
        UnknownName: There is no such setting.
        BadInput: The input is not one image.
    """
    unknown = sorted(set(given) - set(Settings.__dataclass_fields__))
    if unknown:
        raise UnknownName("setting", unknown[0], Settings.__dataclass_fields__)
    settings = Settings(**given)
    shape = settings.input_shape
    if shape is not None and (len(shape) != 4 or not all(isinstance(n, int) for n in shape)):
        raise BadInput(f"input shape {shape} is not that of one image", "for instance 1,3,32,32")
    return settings


def method_options(method: Method, chosen: Settings) -> dict[str, Any]:
    """Return the method's options, those not given at their defaults.

    Raises:
        UnknownName: The method has no such option.
        BadInput: A value is of another kind than the option's default.
    """
    given = dict(chosen.method_options or {})
    for name, value in given.items():
        if name not in method.defaults:
            raise UnknownName(f"option of {chosen.method}", name, method.defaults)
        given[name] = _of_kind(f"{chosen.method}: {name}", value, method.defaults[name])
    return {**method.defaults, **given}


def _of_kind(name: str, value: Any, default: Any) -> Any:
    """Return a value as the kind of its default; one value stands for a tuple of one."""
    if isinstance(default, tuple):
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: number and float(value).is_integer(),
        float: number,
        str: isinstance(value, str),
    }
    if not fits.get(type(default), True):
        raise BadInput(f"{name}={value!r} is no {type(default).__name__}", f"as in {default!r}")
    return type(default)(value) if number else value


def run_config(
    loaded: LoadedNetwork, target: Target, task: Task, budget: Budget, chosen: Settings,
    options: Mapping[str, Any], recipe: Recipe, trained: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return everything that decides the results of a run."""
    weights = hashlib.sha256()
    for name, tensor in sorted(loaded.net.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "network": loaded.name, "network_digest": weights.hexdigest()[:16],
        "target": target.spec, "fingerprint": target.fingerprint,
        "method": chosen.method, "method_options": dict(options),
        "budget": budget.to_json(), "task": task.name, "metric": task.metric,
        "seed": chosen.seed, "input_shape": list(loaded.input_shape),
        "recipe": recipe.to_json(), "trained": trained,
        "recovery_epochs": chosen.recovery_epochs, "members": chosen.members,
        "keep": list(chosen.keep),
        "weights": str(chosen.weights) if chosen.weights else None,
        "num_classes": task.num_classes, "command": chosen.command,
    }  # fmt: skip


def target_facts(target: Target) -> dict[str, Any]:
    """Return what a report tells of a target."""
    return {
        "name": target.spec, "fingerprint": target.fingerprint, "precision": target.precision,
        "alignment": target.alignment, "provenance": target.provenance,
    }  # fmt: skip
