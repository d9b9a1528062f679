# SPDX-License-Identifier: Apache-2.0
"""``NETS`` and ``create``: networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.registry import Registry

Factory = Callable[..., nn.Module]

#: Factories of networks; each takes ``num_classes`` and ``input_shape`` and its own options.
NETS: Registry[Factory] = Registry("net", "chipfit.nets")


def register_net(name: str, *, summary: str, source: str = "") -> Callable[[Factory], Factory]:
    """Return a decorator that adds a factory to :data:`NETS`.

    The factory takes at least the keywords ``num_classes: int`` and
    ``input_shape: tuple[int, int, int, int]`` (``1, C, H, W``), both with defaults, and returns a
    module that carries ``input_shape``.

    Args:
        name: What users type.
        summary: One line for ``chipfit nets``.
        source: The paper.
    """
    return NETS.register(name, summary=summary, source=source)


def create(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """Build a network of the zoo with freshly drawn weights.

    The global random state is left as it was; equal arguments give equal weights.

    Args:
        name: A name from ``chipfit nets``.
        num_classes: Outputs of the classifier; the net's own default where ``None``.
        in_channels: Image channels; those of ``input_shape`` where ``None``.
        input_shape: ``(1, C, H, W)``; the net's own default where ``None``. Some nets choose their
            padding by it; ``module.input_shape`` tells what was used.
        seed: Of the initial weights.
        **options: Further keywords of that net.

    Raises:
        UnknownName: No such net.
        BadInput: An option is unknown, or a value cannot be used.

    Example:
        >>> create("tiny_mobilenet_v2", num_classes=10, in_channels=1).input_shape
        (1, 1, 28, 28)
    """
    factory = NETS.get(name).value
    parameters = inspect.signature(factory).parameters
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise BadInput(
            f"net {name!r} has no option {', '.join(unknown)}",
            f"it takes {', '.join(parameters)}, in_channels and seed",
        )
    shape = tuple(input_shape or parameters["input_shape"].default)
    if len(shape) != 4 or min(shape) < 1:
        raise BadInput(f"input_shape {shape} of net {name!r} is not (1, C, H, W)")
    if in_channels is not None:
        if in_channels < 1 or (input_shape is not None and shape[1] != in_channels):
            raise BadInput(f"in_channels={in_channels} does not fit input_shape {shape}")
        shape = (shape[0], in_channels, *shape[2:])
    if num_classes is not None:
        if num_classes < 1:
            raise BadInput(f"num_classes={num_classes} of net {name!r} must be positive")
        options["num_classes"] = num_classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(input_shape=(1, *shape[1:]), **options)
