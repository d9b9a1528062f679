# SPDX-License-Identifier: Apache-2.0
"""RepVGG's plain networks with the branches that RepNAS chooses among.

Zhang et al., "RepNAS: Searching for Efficient Re-parameterizing Blocks", 2021, arXiv 2109.03508.
"""

from __future__ import annotations

from chipfit.blocks.rep_branches import BRANCHES, RepBranches
from chipfit.errors import BadInput
from chipfit.nets.registry import register_net
from chipfit.nets.repvgg import REPVGG_A0, RepVGG, Shape4
from chipfit.space.blocks import BlockSpace
from chipfit.space.branches import BranchPlace, branch_space

#: Channels and blocks of each stage of the small relative.
TINY = ((16, 1), (32, 3), (64, 3))


class RepBranchesNet(RepVGG):
    """RepVGG of :class:`~chipfit.blocks.rep_branches.RepBranches`."""

    block = RepBranches

    @property
    def block_space(self) -> BlockSpace:
        """Every subset of the branches, place by place."""
        return branch_space(
            [
                BranchPlace(name, m.in_channels, m.out_channels, m.stride, BRANCHES, m.act_name)
                for name, m in self.named_modules()
                if isinstance(m, RepBranches)
            ]
        )


@register_net(
    "rep_branches_a0",
    summary="RepVGG-A0 with six branches beside the identity, to train with and to merge",
    source="Zhang et al., RepNAS, 2021, arXiv 2109.03508",
)
def rep_branches_a0(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    deploy: bool = False,
) -> RepBranchesNet:
    """Build RepVGG-A0 with all branches.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        deploy: Plain 3x3 convolutions, as ``repvgg_a0`` has them.
    """
    return RepBranchesNet(REPVGG_A0, num_classes, input_shape, deploy)


@register_net(
    "tiny_rep_branches",
    summary="seven blocks of branches for images of 8 to 64 pixels: 116 k parameters once merged",
    source="after Zhang et al., RepNAS, 2021, arXiv 2109.03508",
)
def tiny_rep_branches(
    *,
    num_classes: int = 10,
    input_shape: Shape4 = (1, 1, 28, 28),
    deploy: bool = False,
) -> RepBranchesNet:
    """Build the small relative, which trains in minutes on a CPU.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; images of 8 to 64 pixels, which three strides divide by 8.
        deploy: Plain 3x3 convolutions.

    Raises:
        BadInput: The images are too small or too large for it.
    """
    if not all(8 <= size <= 64 for size in input_shape[2:]):
        raise BadInput(
            f"tiny_rep_branches takes images of 8 to 64 pixels, not {input_shape[2:]}",
            "use rep_branches_a0 for larger ones",
        )
    return RepBranchesNet(TINY, num_classes, input_shape, deploy)
