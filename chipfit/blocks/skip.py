# SPDX-License-Identifier: Apache-2.0
"""``skip`` and ``none``: the candidate operations that compute nothing."""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "skip",
    summary="the identity; at a block's place it drops the layer",
    source="Cai et al., ProxylessNAS, ICLR 2019, arXiv 1812.00332, section 3.1",
)
class Skip(nn.Identity):
    """The identity.

    Args:
        in_channels: Input channels.
        out_channels: The same.
        stride: 1.

    Raises:
        BadInput: The block would have to change the shape.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if in_channels != out_channels or stride != 1:
            raise BadInput(
                f"a skip from {in_channels} to {out_channels} channels with stride {stride}",
                "only blocks that keep the shape can be skipped",
            )


@register_block(
    "none",
    summary="zeros: an edge of a cell that is not there",
    source="Liu et al., DARTS, ICLR 2019, arXiv 1806.09055, section 2.1",
)
class Zero(nn.Module):
    """Zeros of the output's shape; cells leave such an edge out altogether (:func:`is_absent`).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the edge.
    """

    absent = True

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.out_channels, self.stride = out_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to zeros ``(N, C_out, H / stride, W / stride)``."""
        small = x[:, :1, :: self.stride, :: self.stride]
        return small.mul(0.0).expand(-1, self.out_channels, -1, -1)


def is_absent(module: nn.Module) -> bool:
    """Tell whether an edge is not there: it is ``none``, or a choice that is fixed to it now."""
    return bool(getattr(module, "absent", False))
