# SPDX-License-Identifier: Apache-2.0
"""``LowRankConv``: a convolution as a column of few filters followed by a row.

Jaderberg, Vedaldi and Zisserman, "Speeding up Convolutional Neural Networks with Low Rank
Expansions", BMVC 2014, arXiv 1405.3866, section 2, scheme 2.
"""

from __future__ import annotations

from torch import nn

from chipfit.blocks.conv_bn_act import activation_module, same_padding
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "low_rank_conv",
    summary="kx1 convolution to few channels, then a 1xk one, with nothing between",
    source="Jaderberg et al., BMVC 2014, arXiv 1405.3866",
)
class LowRankConv(nn.Sequential):
    """A kx1 and a 1xk convolution, batch norm and, unless ``act`` is ``"none"``, an activation.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the first one's rows and of the second one's columns.
        kernel: Odd.
        rank: Channels between; ``None`` is half of ``out_channels``, rounded up.
        act: Key of :data:`~chipfit.blocks.conv_bn_act.ACTIVATION_MODULES`, or ``none``.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.

    Raises:
        BadInput: The rank is not positive, or the kernel even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        kernel: int = 3,
        rank: int | None = None,
        act: str = "relu",
        same_size: tuple[int, int] | None = None,
    ) -> None:
        rank = -(-out_channels // 2) if rank is None else rank
        if rank < 1 or kernel < 1 or kernel % 2 == 0:
            raise BadInput(f"rank={rank} and kernel={kernel} of a low-rank convolution",
                           "take a positive rank and an odd kernel")  # fmt: skip
        layers: list[nn.Module] = []
        rows, columns = kernel // 2, kernel // 2
        if same_size is not None:
            (top, bottom), (left, right) = (same_padding(s, kernel, stride) for s in same_size)
            rows, columns = top, left
            if top != bottom or left != right:
                layers.append(nn.ZeroPad2d((left, right, top, bottom)))
                rows, columns = 0, 0
        layers += [
            nn.Conv2d(in_channels, rank, (kernel, 1), (stride, 1), (rows, 0), bias=False),
            nn.Conv2d(rank, out_channels, (1, kernel), (1, stride), (0, columns), bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        if act != "none":
            layers.append(activation_module(act))
        super().__init__(*layers)
