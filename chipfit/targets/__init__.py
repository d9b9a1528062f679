# SPDX-License-Identifier: Apache-2.0
"""Devices that price networks, one file per family; :func:`create` finds them by name."""

from __future__ import annotations

import inspect
from typing import Any

from chipfit.errors import BadInput, UnknownName
from chipfit.targets.base import TARGETS, LayerCost, NetworkCost, Refusal, Target, Unit

__all__ = ["TARGETS", "LayerCost", "NetworkCost", "Refusal", "Target", "Unit", "create"]


def create(name: str, **options: Any) -> Target:
    """Create a target by name.

    Options may stand in the name: ``"ethos-u55-128:memory_mode=Sram_Only"``, several with commas.

    >>> create("analytic:precision=float32").precision
    'float32'

    Args:
        name: A registered name, with options behind a colon or without.
        **options: Settings of the target's family; they may not repeat those in the name.

    Raises:
        UnknownName: No such target, or no such option or setting; near matches are named.
        BadInput: An option is malformed or given twice.
        MissingBackend: The family's compiler or runtime is not installed.
    """
    base, _, tail = name.partition(":")
    settings = dict(options)
    for part in filter(None, tail.split(",")):
        key, equals, value = (text.strip() for text in part.partition("="))
        if not equals or not value:
            raise BadInput(f"cannot read the option {part!r} in {name!r}", "write option=value")
        if key in settings:
            raise BadInput(f"the option {key} of {base} is given twice")
        settings[key] = value
    factory = TARGETS.get(base).value
    known = inspect.signature(factory).parameters
    for key in settings:
        if key not in known:
            if not known:
                raise BadInput(f"the target {base} has no options, so not {key}")
            raise UnknownName(f"option of {base}", key, known)
    target: Target = factory(**settings)
    return target
