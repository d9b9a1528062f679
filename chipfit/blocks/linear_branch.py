# SPDX-License-Identifier: Apache-2.0
"""``LinearBranch``: the branches of re-parameterised blocks, each equal to one convolution.

Ding et al., "Diverse Branch Block", CVPR 2021, arXiv 2103.13425, figure 2; the 1xk and kx1 ones as
in Ding et al., "ACNet", ICCV 2019, arXiv 1908.03930.
"""

from __future__ import annotations

from torch import nn

from chipfit.blocks.merge import (
    Merged,
    average,
    bias_free,
    centred,
    pointwise_first,
    with_norm,
)

#: Kinds of branches; ``k`` stands for the kernel of the block.
KINDS = ("1x1", "1x1-kxk", "1x1-avg", "kxk", "1xk", "kx1")


class LinearBranch(nn.Sequential):
    """Convolutions and pooling in a row with batch norm behind every convolution and at the end.

    The paper pads behind the 1x1 convolution, with what its batch norm makes of zeros by its
    running statistics. Here the 1x1 convolution itself pads with zeros, so that the following norm
    makes the same of them: equal in evaluation mode; in training mode the norm's statistics
    include the border. The 1x1-kxk branch starts with the identity as its 1x1 convolution; the
    paper adds the identity to the weight.

    Args:
        kind: One of :data:`KINDS`.
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Odd.
        stride: Of the branch.
    """

    def __init__(
        self, kind: str, in_channels: int, out_channels: int, kernel: int, stride: int
    ) -> None:
        self.kind, self.kernel = kind, kernel
        half = kernel // 2
        if kind in ("1x1-kxk", "1x1-avg"):
            # The zeros go in front of the 1x1 convolution: its norm turns them into its shift, and
            # that is what the next layer must see around the image to equal one convolution.
            middle = in_channels if kind == "1x1-kxk" else out_channels
            first = nn.Conv2d(in_channels, middle, 1, padding=half, bias=False)
            if kind == "1x1-kxk":
                nn.init.dirac_(first.weight)
            second = (
                nn.Conv2d(middle, out_channels, kernel, stride, bias=False)
                if kind == "1x1-kxk"
                else nn.AvgPool2d(kernel, stride)
            )
            layers: list[nn.Module] = [first, nn.BatchNorm2d(middle), second]
        else:
            height, width = (kernel if side == "k" else 1 for side in kind.split("x"))
            size, padding = (height, width), (height // 2, width // 2)
            layers = [nn.Conv2d(in_channels, out_channels, size, stride, padding, bias=False)]
        super().__init__(*layers, nn.BatchNorm2d(out_channels))

    def merged(self) -> Merged:
        """Return the branch in evaluation mode as one convolution, padded ``kernel // 2``."""
        first, last = self[0], self[-1]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(last, nn.BatchNorm2d)
        found = bias_free(first.weight)
        if len(self) > 2:
            norm, second = self[1], self[2]
            assert isinstance(norm, nn.BatchNorm2d)
            if isinstance(second, nn.Conv2d):
                then = bias_free(second.weight)
            else:
                then = average(norm.num_features, self.kernel, first.weight)
            found = pointwise_first(with_norm(found, norm), then)
        weight, bias = with_norm(found, last)
        return centred(weight, self.kernel), bias
