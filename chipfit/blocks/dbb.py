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
from chipfit.blocks.linear_branch import LinearBranch
from chipfit.blocks.merge import convolution, parallel
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput

#: Branches by name, in the order of the paper's figure.
BRANCHES = ("1x1", "1x1-kxk", "1x1-avg", "kxk")


@register_block(
    "dbb",
    summary="kxk, 1x1, 1x1-kxk and 1x1-average branches, merged when deployed; activation",
    source="Ding et al., CVPR 2021, arXiv 2103.13425",
)
class DiverseBranchBlock(nn.Module):
    """The sum of the branches, each with batch norm behind every convolution; then an activation.

    Where the padding differs from the paper's, and how branches start: see
    :class:`~chipfit.blocks.linear_branch.LinearBranch`.

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
            self.branches = nn.ModuleList(
                LinearBranch(name, in_channels, out_channels, kernel, stride) for name in branches
            )
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
        branches = [branch for branch in self.branches if isinstance(branch, LinearBranch)]
        like = next(self.parameters())
        total = parallel(branch.merged() for branch in branches)
        merged.conv = convolution(total, like, stride, kernel // 2)
        return merged.train(self.training)
