# SPDX-License-Identifier: Apache-2.0
"""``BLOCKS`` and ``create_block``: building blocks by name, with one interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from chipfit.errors import BadInput
from chipfit.registry import Registry

#: ``build(in_channels, out_channels, stride=1, **options) -> nn.Module``.
BlockFactory = Callable[..., nn.Module]

#: Factories of blocks. Each maps ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride,
#: W / stride)``, rounded up; options have defaults and are JSON values, so that a block can be
#: stored as data.
BLOCKS: Registry[BlockFactory] = Registry("block", "chipfit.blocks")


def register_block(
    name: str, *, summary: str, source: str = ""
) -> Callable[[BlockFactory], BlockFactory]:
    """Return a decorator that adds a factory, or a block's class, to :data:`BLOCKS`.

    Args:
        name: What stores and users write.
        summary: One line.
        source: The paper.
    """
    return BLOCKS.register(name, summary=summary, source=source)


def create_block(
    name: str, in_channels: int, out_channels: int, stride: int = 1, **options: Any
) -> nn.Module:
    """Build a block with freshly drawn weights.

    Args:
        name: Of the block.
        in_channels: Input channels.
        out_channels: Output channels.
        stride: 1 or 2.
        **options: Of that block; lists stand for tuples, as JSON has none.

    Raises:
        UnknownName: No such block.
        BadInput: The block has no such option, or cannot be built with it.
    """
    factory = BLOCKS.get(name).value
    known = inspect.signature(factory).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise BadInput(f"block {name!r} has no option {', '.join(unknown)}", f"has: {list(known)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        return factory(in_channels, out_channels, stride=stride, **values)
    except (TypeError, ValueError) as error:
        raise BadInput(f"block {name!r} cannot be built: {error}") from error
