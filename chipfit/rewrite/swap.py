# SPDX-License-Identifier: Apache-2.0
"""``Swap``: a module gives way to a block of the registry, as data that replays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from chipfit.blocks.registry import create_block
from chipfit.errors import BadInput


@dataclass(frozen=True)
class Swap:
    """Replace one module by a block; equal swaps draw equal weights.

    Args:
        module: Dotted name of the module that goes.
        block: Name of the block, of :data:`chipfit.blocks.registry.BLOCKS`.
        in_channels: Of the block.
        out_channels: Of the block.
        stride: Of the block.
        options: Of the block; JSON values.
    """

    module: str
    block: str
    in_channels: int
    out_channels: int
    stride: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {
            "rewrite": "swap", "module": self.module, "block": self.block,
            "in_channels": self.in_channels, "out_channels": self.out_channels,
            "stride": self.stride, "options": dict(self.options),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Swap:
        """Restore a swap from :meth:`to_json`.

        Raises:
            BadInput: A field is missing or of the wrong kind.
        """
        try:
            return cls(
                str(data["module"]), str(data["block"]), int(data["in_channels"]),
                int(data["out_channels"]), int(data["stride"]), dict(data["options"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"not a swap: {data!r} ({error})") from error

    def build(self) -> nn.Module:
        """Return the new block.

        Raises:
            UnknownName: No such block.
            BadInput: It cannot be built.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return create_block(
                self.block, self.in_channels, self.out_channels, self.stride, **self.options
            )

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the modules that are there no more, with all that is in them."""
        return (self.module,)

    def made_from(self, old: nn.Module) -> nn.Module:
        """Return what comes in the place of ``old``, which is not changed.

        Raises:
            UnknownName: No such block.
            BadInput: It cannot be built.
        """
        return self.build()

    def apply(self, net: nn.Module) -> nn.Module:
        """Swap in place and return ``net``; mode, type and device are those of what went.

        Raises:
            BadInput: ``net`` has no such module.
            UnknownName: No such block.
        """
        try:
            old = net.get_submodule(self.module)
        except AttributeError as error:
            raise BadInput(
                f"swap of {self.module}: the network has no such module",
                "replay edits on the class and the arguments they were made for",
            ) from error
        new = self.made_from(old).train(old.training)
        # What holds no parameters, an identity, is where the network is.
        like = next(old.parameters(), next(net.parameters(), None))
        if like is not None:
            new = new.to(device=like.device, dtype=like.dtype)
        net.set_submodule(self.module, new)
        return net
