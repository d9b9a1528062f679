# SPDX-License-Identifier: Apache-2.0
"""``Separate``: dense convolutions become a depthwise and a pointwise one, nearest to what they do.

Guo et al., "Network Decoupling: From Regular to Depthwise Separable Convolutions", BMVC 2018, arXiv
1808.05517: a dense convolution is a sum of depthwise separable ones, which the singular value
decomposition of the weights of each input channel gives, largest first. Here the first alone stays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.rewrite.swap import Swap

#: What the depthwise convolution has of the dense one.
_ALIKE = ("kernel_size", "stride", "padding", "dilation", "padding_mode")


class SeparableConv(nn.Module):
    """A depthwise and a pointwise convolution with nothing between.

    Args:
        dense: What it stands for; its place, size, stride, padding and bias stay.
    """

    def __init__(self, dense: nn.Conv2d) -> None:
        super().__init__()
        channels = dense.in_channels
        alike: dict[str, Any] = {name: getattr(dense, name) for name in _ALIKE}
        self.depthwise = nn.Conv2d(channels, channels, groups=channels, bias=False, **alike)
        self.pointwise = nn.Conv2d(channels, dense.out_channels, 1, bias=dense.bias is not None)
        down, across = separated(dense.weight.detach())
        with torch.no_grad():
            self.depthwise.weight.copy_(down)
            self.pointwise.weight.copy_(across)
            if dense.bias is not None and self.pointwise.bias is not None:
                self.pointwise.bias.copy_(dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to what the dense convolution makes, nearly."""
        made: Tensor = self.pointwise(self.depthwise(x))
        return made


def separated(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the separable convolution nearest to a dense one, by the sum of squared differences.

    Args:
        weight: ``(out, in, kh, kw)``.

    Returns:
        Of the depthwise one ``(in, 1, kh, kw)``, of norm 1 in each channel, the sum not negative,
        and of the pointwise one ``(out, in, 1, 1)``.
    """
    out, into, *size = weight.shape
    by_input = weight.double().transpose(0, 1).flatten(2)  # (in, out, kh * kw)
    left, strength, right = torch.linalg.svd(by_input, full_matrices=False)
    sign = torch.where(right[:, 0].sum(1) < 0, -1.0, 1.0).double()
    down = right[:, 0] * sign[:, None]
    across = left[:, :, 0] * (strength[:, 0] * sign)[:, None]
    return (
        down.reshape(into, 1, *size).to(weight.dtype),
        across.T.reshape(out, into, 1, 1).to(weight.dtype),
    )


@dataclass(frozen=True)
class Separate(Swap):
    """Replace dense convolutions inside one module; all else in it stays as it is.

    Args:
        convs: Their names inside the module, ``""`` for itself.
    """

    convs: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Separate | None:
        """Return the replacement of all that can be replaced in a module; none where nothing can.

        Args:
            name: Of the module in its network.
            module: It is not changed.
        """
        convs = tuple(inner for inner, one in module.named_modules() if _is_dense(one))
        return cls(name, "separate", 0, 0, 1, {}, convs) if convs else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {"rewrite": "separate", "module": self.module, "convs": list(self.convs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Separate:
        """Restore from :meth:`to_json`.

        Raises:
            BadInput: A field is missing or of the wrong kind.
        """
        try:
            convs = tuple(str(conv) for conv in data["convs"])
            return cls(str(data["module"]), "separate", 0, 0, 1, {}, convs)
        except (KeyError, TypeError) as error:
            raise BadInput(f"not a separation: {data!r} ({error})") from error

    def build(self) -> nn.Module:
        """Refuse: there is nothing without the module that it is made from."""
        raise BadInput(f"what stands for {self.module} is made from it", "use made_from")

    def made_from(self, old: nn.Module) -> nn.Module:
        """Return a copy of the module with its convolutions replaced.

        Raises:
            BadInput: One of them is missing, or no dense convolution.
        """
        new = copy.deepcopy(old)
        for name in self.convs:
            try:
                dense = new.get_submodule(name)
            except AttributeError as error:
                raise BadInput(f"{self.module} has no convolution {name}") from error
            if not _is_dense(dense):
                raise BadInput(f"{self.module}.{name} is no dense convolution of several pixels")
            assert isinstance(dense, nn.Conv2d)  # as it is dense
            made = SeparableConv(dense).to(dense.weight.device).train(dense.training)
            if not name:
                return made
            new.set_submodule(name, made)
        return new

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the dense convolutions in the network."""
        return tuple(".".join(filter(None, (self.module, conv))) for conv in self.convs)

    def pointwise(self) -> dict[str, str]:
        """Return the names of the dense convolutions by those of the pointwise ones in their place.

        Both are names in the network.
        """
        return {f"{name}.pointwise": name for name in self.removed}


def _is_dense(module: nn.Module) -> bool:
    """Whether a module multiplies all of several channels at several pixels, and does only that."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and min(module.in_channels, module.out_channels) > 1
        and max(module.kernel_size) > 1
    )
