# SPDX-License-Identifier: Apache-2.0
"""``PreActivationConv``: what an inverted residual collapses to in RAN-e.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562: without the
activations inside, expansion, depthwise convolution and projection are one linear map, hence one
dense convolution; a batch norm and an activation before it keep the block non-linear.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.collapsible_conv import CollapsibleConv
from chipfit.blocks.conv_bn_act import ConvBNAct, activation_module
from chipfit.blocks.registry import register_block


@register_block(
    "pre_activation_conv",
    summary="batch norm, activation, dense convolution: a collapsed inverted residual",
    source="Bhardwaj et al., 2022, arXiv 2208.08562",
)
class PreActivationConv(nn.Module):
    """Batch norm, activation, dense convolution, batch norm, and a shortcut where it fits.

    The shortcut is there when ``stride`` is 1 and ``in_channels`` equals ``out_channels``. It reads
    the same tensor as the first batch norm, which therefore cannot be folded into what made it.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Of the convolution, or of both.
        stride: Of the (first) convolution.
        hidden: Channels between two convolutions in a row, with an activation between them;
            ``None`` for a single convolution.
        act: Key of :data:`~chipfit.blocks.conv_bn_act.ACTIVATION_MODULES`.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.
        eps: Of the batch norms.
        momentum: Of the batch norms.
        collapsible: Channels between the factors of a :class:`CollapsibleConv` in the place of each
            convolution, to train the linear inverted bottleneck that it equals; 0 for none.
            :func:`chipfit.blocks.deploy.deploy` makes plain convolutions of them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        hidden: int | None = None,
        act: str = "hardswish",
        same_size: tuple[int, int] | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
        collapsible: int = 0,
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        self.norm = nn.BatchNorm2d(in_channels, eps=eps, momentum=momentum)
        self.act = activation_module(act)

        def conv(i: int, o: int, step: int, after: str, size: tuple[int, int] | None) -> ConvBNAct:
            unit = ConvBNAct(
                i, o, kernel, step, act=after, same_size=size, eps=eps, momentum=momentum
            )
            plain = unit.get_submodule("0")
            if collapsible and isinstance(plain, nn.Conv2d):
                unit.set_submodule("0", CollapsibleConv.like(plain, collapsible, depthwise=True))
            return unit

        if hidden is None:
            self.conv = nn.Sequential(conv(in_channels, out_channels, stride, "none", same_size))
        else:
            half = same_size and (-(-same_size[0] // stride), -(-same_size[1] // stride))
            self.conv = nn.Sequential(
                conv(in_channels, hidden, stride, act, same_size),
                conv(hidden, out_channels, 1, "none", half),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        y = self.conv(self.act(self.norm(x)))
        return x + y if self.residual else y
