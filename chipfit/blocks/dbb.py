# SPDX-License-Identifier: Apache-2.0
"""``DiverseBranchBlock``: four kinds of branches while training, one convolution when deployed.

Ding et al., "Diverse Branch Block: Building a Convolution as an Inception-like Unit", CVPR 2021,
arXiv 2103.13425, section 3.3 and figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import activation_module
from chipfit.blocks.merge import (
    Merged,
    average,
    bias_free,
    centred,
    convolution,
    parallel,
    pointwise_first,
    with_norm,
)
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput

#: Branches by name, in the order of the paper's figure.
BRANCHES = ("1x1", "1x1-kxk", "1x1-avg", "kxk")


class _Branch(nn.Sequential):
    """Linear layers in a row that equal one convolution."""

    def __init__(self, name: str, shape: tuple[int, int, int, int]) -> None:
        into, out, kernel, stride = shape
        self.name, self.kernel = name, kernel
        half = kernel // 2
        if name == "kxk":
            layers: list[nn.Module] = [nn.Conv2d(into, out, kernel, stride, half, bias=False)]
        elif name == "1x1":
            layers = [nn.Conv2d(into, out, 1, stride, bias=False)]
        else:
            # The zeros go in front of the 1x1 convolution: its norm turns them into its shift, and
            # that is what the next layer must see around the image to equal one convolution.
            middle = into if name == "1x1-kxk" else out
            first = nn.Conv2d(into, middle, 1, padding=half, bias=False)
            if name == "1x1-kxk":
                nn.init.dirac_(first.weight)
            second = (
                nn.Conv2d(middle, out, kernel, stride, bias=False)
                if name == "1x1-kxk"
                else nn.AvgPool2d(kernel, stride)
            )
            layers = [first, nn.BatchNorm2d(middle), second]
        super().__init__(*layers, nn.BatchNorm2d(out))

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


@register_block(
    "dbb",
    summary="kxk, 1x1, 1x1-kxk and 1x1-average branches, merged when deployed; activation",
    source="Ding et al., CVPR 2021, arXiv 2103.13425",
)
class DiverseBranchBlock(nn.Module):
    """The sum of the branches, each with batch norm behind every convolution; then an activation.

    The paper pads behind the 1x1 convolution, with what its batch norm makes of zeros by its
    running statistics. Here the 1x1 convolution itself pads with zeros, so that the following norm
    makes the same of them: equal in evaluation mode; in training mode the norm's statistics
    include the border. The 1x1-kxk branch starts with the identity as its 1x1 convolution; the
    paper adds the identity to the weight.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the block.
        kernel: Odd.
        branches: Some of :data:`BRANCHES`.
        act: Key of :data:`~chipfit.blocks.conv_bn_act.ACTIVATION_MODULES`, or ``none``.
        deploy: One convolution with bias instead of the branches.

    Raises:
        BadInput: The kernel is even, or a branch is unknown, missing or named twice.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        kernel: int = 3,
        branches: Sequence[str] = BRANCHES,
        act: str = "relu",
        deploy: bool = False,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise BadInput(f"kernel={kernel} of a diverse branch block", "use an odd one")
        if not branches or len(set(branches)) < len(branches) or set(branches) - set(BRANCHES):
            raise BadInput(
                f"branches {list(branches)} of a diverse branch block",
                f"choose among {', '.join(BRANCHES)}, each at most once",
            )
        self.shape = (in_channels, out_channels, kernel, stride)
        self.act_name, self.deploy = act, deploy
        if deploy:
            self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        else:
            self.branches = nn.ModuleList(_Branch(name, self.shape) for name in branches)
        self.act = nn.Identity() if act == "none" else activation_module(act)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        if self.deploy:
            return self.act(self.conv(x))
        first, *others = self.branches
        y = first(x)
        for branch in others:
            y = y + branch(x)
        return self.act(y)

    @torch.no_grad()
    def deployed(self) -> DiverseBranchBlock:
        """Return the block with its branches merged; equal in evaluation mode, borders included."""
        if self.deploy:
            return self
        into, out, kernel, stride = self.shape
        merged = DiverseBranchBlock(
            into, out, stride, kernel=kernel, act=self.act_name, deploy=True
        )
        branches = [branch for branch in self.branches if isinstance(branch, _Branch)]
        like = next(self.parameters())
        total = parallel(branch.merged() for branch in branches)
        merged.conv = convolution(total, like, stride, kernel // 2)
        return merged.train(self.training)
