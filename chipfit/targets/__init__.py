# SPDX-License-Identifier: Apache-2.0
"""Devices that price networks, one file per family; :func:`create` finds them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from chipfit.errors import BadInput, ChipfitError, UnknownName
from chipfit.targets.base import TARGETS, LayerCost, NetworkCost, Refusal, Target, Unit
from chipfit.user_code import load_module

__all__ = ["TARGETS", "LayerCost", "NetworkCost", "Refusal", "Target", "Unit", "create"]


def create(name: str, **options: Any) -> Target:
    """Create a target by name, or by a factory of the user's own.

    Options may stand in the name: ``"ethos-u55-128:memory_mode=Sram_Only"``, several with commas.
    A factory is named ``file.py:factory`` or ``package.module:factory``, with options behind a
    second colon.

    >>> create("analytic:precision=float32").precision
    'float32'

    Args:
        name: A registered name or a factory, with options behind a colon or without.
        **options: Settings of the target's family; they may not repeat those in the name.

    Raises:
        UnknownName: No such target, or no such option or setting; near matches are named.
        BadInput: An option is malformed or given twice, or the user's factory cannot be used.
        MissingBackend: The family's compiler or runtime is not installed.
    """
    base, _, tail = name.partition(":")
    own = "." in base and base not in TARGETS
    factory: Callable[..., Any]
    if own:
        attribute, _, tail = tail.partition(":")
        factory = _own_factory(base, attribute)
        base = f"{base}:{attribute}"
    else:
        factory = TARGETS.get(base).value
    settings = _settings(base, name, tail, options)
    _check_known(base, settings, factory)
    if own:
        return _own_target(base, factory, settings)
    target: Target = factory(**settings)
    return target


def _settings(base: str, name: str, tail: str, options: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(options)
    for part in filter(None, tail.split(",")):
        key, equals, value = (text.strip() for text in part.partition("="))
        if not equals or not value:
            raise BadInput(f"cannot read the option {part!r} in {name!r}", "write option=value")
        if key in settings:
            raise BadInput(f"the option {key} of {base} is given twice")
        settings[key] = value
    return settings


def _check_known(base: str, settings: Mapping[str, Any], factory: Callable[..., Any]) -> None:
    known = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for key in settings:
        if key not in known:
            if not known:
                raise BadInput(f"the target {base} has no options, so not {key}")
            raise UnknownName(f"option of {base}", key, known)


def _own_factory(place: str, attribute: str) -> Callable[..., Any]:
    module = load_module(place)
    if not attribute:
        raise BadInput(f"{place} does not name a factory", f"write {place}:my_board")
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UnknownName(f"factory in {place}", attribute, names)
    made: Callable[..., Any] = factory
    return made


def _own_target(base: str, factory: Callable[..., Any], settings: Mapping[str, Any]) -> Target:
    try:
        target = factory(**settings)
    except ChipfitError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise BadInput(f"{base} fails: {type(error).__name__}: {error}") from error
    if not isinstance(target, Target):
        raise BadInput(
            f"{base} returns a {type(target).__name__}, which is no target",
            "return a chipfit.targets.own.OperatorTarget",
        )
    return target
