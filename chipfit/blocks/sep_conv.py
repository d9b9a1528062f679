# SPDX-License-Identifier: Apache-2.0
"""``sep_conv`` and ``dil_conv``: the depthwise separable convolutions of DARTS's cells.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, section 3.1.1:
ReLU, convolution, batch norm, in this order, and separable convolutions are applied twice.
"""

from __future__ import annotations

from torch import nn

from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


def _unit(
    in_channels: int, out_channels: int, kernel: int, stride: int, dilation: int
) -> list[nn.Module]:
    if kernel < 1 or kernel % 2 == 0 or dilation < 1:
        raise BadInput(f"kernel={kernel} with dilation={dilation}", "take an odd kernel")
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(
            in_channels, in_channels, kernel, stride, padding, dilation, in_channels, bias=False
        ),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


@register_block(
    "sep_conv",
    summary="ReLU, depthwise and 1x1 convolution, batch norm, all twice",
    source="Liu et al., DARTS, ICLR 2019, arXiv 1806.09055",
)
class SepConv(nn.Sequential):
    """ReLU, depthwise convolution, 1x1 convolution, batch norm; then the same with stride 1.

    Args:
        in_channels: Input channels, and those between.
        out_channels: Output channels.
        stride: Of the first depthwise convolution.
        kernel: Of both depthwise convolutions; odd.

    Raises:
        BadInput: The kernel is even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, kernel: int = 3
    ) -> None:
        super().__init__(
            *_unit(in_channels, in_channels, kernel, stride, 1),
            *_unit(in_channels, out_channels, kernel, 1, 1),
        )


@register_block(
    "dil_conv",
    summary="ReLU, dilated depthwise and 1x1 convolution, batch norm",
    source="Liu et al., DARTS, ICLR 2019, arXiv 1806.09055",
)
class DilConv(nn.Sequential):
    """ReLU, dilated depthwise convolution, 1x1 convolution, batch norm.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the depthwise convolution.
        kernel: Of the depthwise convolution; odd.
        dilation: Pixels from tap to tap.

    Raises:
        BadInput: The kernel is even, or the dilation not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        kernel: int = 3,
        dilation: int = 2,
    ) -> None:
        super().__init__(*_unit(in_channels, out_channels, kernel, stride, dilation))
