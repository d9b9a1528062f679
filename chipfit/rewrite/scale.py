# SPDX-License-Identifier: Apache-2.0
"""``Scale``: a network of the same family with other widths and depths, as data that replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from chipfit.errors import BadInput


@runtime_checkable
class Scalable(Protocol):
    """A network that can be built anew with other widths and depths.

    The nets of the zoo that consist of stages have it; a user's own class gets it by an attribute
    and a method.
    """

    #: Channels and number of blocks of each stage.
    widths: Sequence[int]
    depths: Sequence[int]

    def scaled(self, widths: Sequence[int], depths: Sequence[int]) -> nn.Module:
        """Return a freshly drawn network that is equal in everything else."""
        ...


@dataclass(frozen=True)
class Scale:
    """Build the network anew with these widths and depths; equal edits draw equal weights.

    Args:
        widths: Channels of each stage.
        depths: Blocks of each stage.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {"rewrite": "scale", "widths": list(self.widths), "depths": list(self.depths)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scale:
        """Restore from :meth:`to_json`.

        Raises:
            BadInput: A field is missing or of the wrong kind.
        """
        try:
            return cls(tuple(map(int, data["widths"])), tuple(map(int, data["depths"])))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"not a scaling: {data!r} ({error})") from error

    def apply(self, net: nn.Module) -> nn.Module:
        """Return the scaled network; ``net`` is left as it is.

        Raises:
            BadInput: ``net`` is not :class:`Scalable`, or has another number of stages.
        """
        if not isinstance(net, Scalable):
            raise BadInput(
                f"{type(net).__name__} cannot be scaled",
                "give it the attributes widths and depths and a method scaled(widths, depths)",
            )
        if not len(self.widths) == len(self.depths) == len(net.widths):
            raise BadInput(f"a scaling of {len(self.widths)} stages, not {len(net.widths)}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return net.scaled(self.widths, self.depths).train(net.training)
