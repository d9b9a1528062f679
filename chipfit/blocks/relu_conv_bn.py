# SPDX-License-Identifier: Apache-2.0
"""``relu_conv_bn`` and ``factorised_reduce``: dense convolutions in the cells of search spaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "relu_conv_bn",
    summary="ReLU, convolution, batch norm",
    source="Liu et al., DARTS, ICLR 2019, arXiv 1806.09055",
)
class ReLUConvBN(nn.Sequential):
    """ReLU, convolution without bias, batch norm.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the convolution.
        kernel: Of the convolution; odd.

    Raises:
        BadInput: The kernel is even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, kernel: int = 1
    ) -> None:
        if kernel < 1 or kernel % 2 == 0:
            raise BadInput(f"kernel={kernel} of a convolution in a cell", "take an odd one")
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )


@register_block(
    "factorised_reduce",
    summary="half the pixels: two 1x1 convolutions of stride 2, one pixel apart, concatenated",
    source="Liu et al., DARTS, ICLR 2019, arXiv 1806.09055",
)
class FactorisedReduce(nn.Module):
    """ReLU; two strided 1x1 convolutions, the second one pixel further; concatenation; batch norm.

    It stands for the identity where a cell halves the image. Without a stride one 1x1 convolution
    is left. Images of odd size get a row and a column of zeros for the second convolution.

    Args:
        in_channels: Input channels.
        out_channels: Output channels; even where ``stride`` is 2.
        stride: 1 or 2.

    Raises:
        BadInput: The stride is neither, or the channels cannot be halved.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if stride not in (1, 2) or (stride == 2 and out_channels % 2):
            raise BadInput(
                f"a factorised reduction to {out_channels} channels with stride {stride}",
                "take stride 2 and an even number of channels",
            )
        self.stride = stride
        halves = [out_channels // stride] * stride
        self.act = nn.ReLU()
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, half, 1, stride, bias=False) for half in halves
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        x = self.act(x)
        if self.stride == 1:
            return self.norm(self.convs[0](x))
        odd = (x.shape[2] % 2, x.shape[3] % 2)
        shifted = functional.pad(x, (0, odd[1], 0, odd[0])) if any(odd) else x
        both = [self.convs[0](x), self.convs[1](shifted[:, :, 1:, 1:])]
        return self.norm(torch.cat(both, dim=1))
