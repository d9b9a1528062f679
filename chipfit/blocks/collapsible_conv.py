# SPDX-License-Identifier: Apache-2.0
"""``CollapsibleConv``: trained as convolutions in a row, executed as one.

Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super Resolution", MLSys 2022,
arXiv 2103.09404, sections 3.1 to 3.3: a wide linear convolution and a 1x1 projection train better
than the one convolution that they equal; collapsing them in every step costs less than running
them, and gradients reach the factors through the collapse.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "collapsible_conv",
    summary="a wide linear convolution and a 1x1 projection, executed as one convolution",
    source="Bhardwaj et al., MLSys 2022, arXiv 2103.09404",
)
class CollapsibleConv(nn.Module):
    """``W2 (W1 * x) + b``, computed as ``(W2 W1) * x + b``; no activation.

    The factors have no bias, so that both forms are equal at the borders, too; the bias is
    separate. The shortcut becomes a one in the middle of the kernel. With ``depthwise`` the
    factors are those of a linear inverted bottleneck: 1x1 expansion, depthwise kxk convolution,
    1x1 projection, which is what RAN-e (arXiv 2208.08562) collapses; training that form collapsed
    is our combination of the two papers. Factors start with normal weights that keep the variance
    (our choice).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the kxk convolution.
        kernel: Its size.
        expansion: Channels between the factors; 256 in the paper, 64 for its larger networks.
        depthwise: Three factors, the middle one depthwise.
        residual: Add the input; ``None`` does where stride and channels allow.
        expanded: Execute the factors one after the other; the result is the same, for more work.
        bias: Whether there is one.
        padding: Zeros on every side, or ``(rows, columns)``; ``None`` is ``kernel // 2``.

    Raises:
        BadInput: A residual that does not fit, or ``expansion`` is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        kernel: int = 3,
        expansion: int = 256,
        depthwise: bool = False,
        residual: bool | None = None,
        expanded: bool = False,
        bias: bool = True,
        padding: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        sides = kernel // 2 if padding is None else padding
        self.padding = (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])
        keeps = (
            stride == 1
            and in_channels == out_channels
            and kernel % 2 == 1
            and self.padding == (kernel // 2, kernel // 2)
        )
        if residual and not keeps:
            raise BadInput(
                f"a shortcut around {in_channels} to {out_channels} channels, stride {stride}, "
                f"kernel {kernel} and padding {self.padding}",
                "the convolution must keep the shape",
            )
        if expansion < 1:
            raise BadInput(f"expansion={expansion} of a collapsible convolution must be positive")
        self.stride, self.kernel, self.expanded = stride, kernel, expanded
        self.residual = keeps if residual is None else residual
        self.expand = nn.Parameter(
            torch.empty(expansion, in_channels, *[1 if depthwise else kernel] * 2)
        )
        self.depthwise = (
            nn.Parameter(torch.empty(expansion, 1, kernel, kernel)) if depthwise else None
        )
        self.project = nn.Parameter(torch.empty(out_channels, expansion, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        for factor in (self.expand, self.depthwise, self.project):
            if factor is not None:
                nn.init.kaiming_normal_(factor, nonlinearity="linear")

    @classmethod
    def like(
        cls, conv: nn.Conv2d, expansion: int, *, depthwise: bool = False, residual: bool = False
    ) -> CollapsibleConv:
        """Return a freshly drawn one with the shape of a dense square convolution.

        Raises:
            BadInput: ``conv`` has groups, dilation, or another padding than zeros.
        """
        plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        square = conv.kernel_size[0] == conv.kernel_size[1] and conv.stride[0] == conv.stride[1]
        if not (plain and square) or isinstance(conv.padding, str):
            raise BadInput(f"{conv} has no collapsible form", "it takes dense square convolutions")
        return cls(
            conv.in_channels, conv.out_channels, conv.stride[0], kernel=conv.kernel_size[0],
            expansion=expansion, depthwise=depthwise, residual=residual,
            bias=conv.bias is not None, padding=(conv.padding[0], conv.padding[1]),
        ).to(conv.weight)  # fmt: skip

    def weight(self) -> Tensor:
        """Return the collapsed kernel ``(C_out, C_in, k, k)``, differentiable in the factors."""
        inner = self.expand if self.depthwise is None else self.expand * self.depthwise
        kernel = (self.project.flatten(1) @ inner.flatten(1)).unflatten(1, inner.shape[1:])
        if self.residual:
            unit = torch.zeros_like(kernel)
            nn.init.dirac_(unit)
            kernel = kernel + unit
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        if not self.expanded:
            return conv2d(x, self.weight(), self.bias, self.stride, self.padding)
        if self.depthwise is None:
            y = conv2d(x, self.expand, None, self.stride, self.padding)
        else:
            groups = len(self.expand)
            y = conv2d(x, self.expand)
            y = conv2d(y, self.depthwise, None, self.stride, self.padding, groups=groups)
        y = conv2d(y, self.project, self.bias)
        return x + y if self.residual else y

    @torch.no_grad()
    def collapsed(self) -> nn.Conv2d:
        """Return the convolution that the block equals, as a plain module."""
        out, into = len(self.project), self.expand.shape[1]
        biased = self.bias is not None
        conv = nn.Conv2d(into, out, self.kernel, self.stride, self.padding, bias=biased)
        conv = conv.to(self.expand)
        conv.weight.copy_(self.weight())
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.bias)
        return conv.train(self.training)

    def deployed(self) -> nn.Conv2d:
        """Return :meth:`collapsed`."""
        return self.collapsed()
