# SPDX-License-Identifier: Apache-2.0
"""``RepBranches``: some of six branches while training, one 3x3 convolution when deployed.

Zhang et al., "RepNAS: Searching for Efficient Re-parameterizing Blocks", 2021, arXiv 2109.03508.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import activation_module
from chipfit.blocks.linear_branch import LinearBranch
from chipfit.blocks.merge import Merged, bias_free, convolution, identity, parallel, with_norm
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput

#: Branches by name.
BRANCHES = ("1x1", "1x1-avg", "3x3", "1x1-3x3", "1x3", "3x1")


@register_block(
    "rep_branches",
    summary="identity and some of six branches, merged to a 3x3 convolution when deployed",
    source="Zhang et al., RepNAS, 2021, arXiv 2109.03508",
)
class RepBranches(nn.Module):
    """The sum of the branches, each with batch norm, and of the identity; then an activation.

    The identity, a batch norm, is there when ``stride`` is 1 and the channels agree; it is no
    choice. Where the padding differs from the paper's, and how branches start: see
    :class:`~chipfit.blocks.linear_branch.LinearBranch`.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the block.
        branches: Some of :data:`BRANCHES`; how a deployed block was made does not change it.
        act: Key of :data:`~chipfit.blocks.conv_bn_act.ACTIVATION_MODULES`, or ``none``.
        deploy: One 3x3 convolution with bias instead of the branches.
        norm: A batch norm behind it instead of the bias, to go on training with; devices fold it.

    Raises:
        BadInput: A branch is unknown, missing or named twice, or the activation is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        branches: Sequence[str] = BRANCHES,
        act: str = "relu",
        deploy: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        if not branches or len(set(branches)) < len(branches) or set(branches) - set(BRANCHES):
            raise BadInput(
                f"branches {list(branches)} of a rep_branches block",
                f"choose among {', '.join(BRANCHES)}, each at most once",
            )
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.branch_names, self.act_name, self.deploy = tuple(branches), act, deploy
        #: Factor of each branch, ``(branches,)``; what has 0 is not executed. ``None``: all are 1.
        self.gates: Tensor | None = None
        self.identity: nn.BatchNorm2d | None = None
        self.norm: nn.BatchNorm2d | None = None
        if norm and not deploy:
            raise BadInput(
                "norm=True of a rep_branches block that is not deployed",
                "every branch has a batch norm of its own",
            )
        if deploy:
            self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=not norm)
            self.norm = nn.BatchNorm2d(out_channels) if norm else None
        else:
            if stride == 1 and in_channels == out_channels:
                self.identity = nn.BatchNorm2d(in_channels)
            self.branches = nn.ModuleDict(
                {
                    name: LinearBranch(name.replace("3", "k"), in_channels, out_channels, 3, stride)
                    for name in branches
                }
            )
        self.act = nn.Identity() if act == "none" else activation_module(act)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``.

        Raises:
            BadInput: All gates are 0, and there is no identity.
        """
        if self.deploy:
            y = self.conv(x)
            return self.act(y if self.norm is None else self.norm(y))
        terms = [] if self.identity is None else [self.identity(x)]
        for name, gate in self._open():
            term = self.branches[name](x)
            terms.append(term if gate is None else gate.to(x.dtype) * term)
        if not terms:
            raise _nothing_open()
        y = terms[0]
        for term in terms[1:]:
            y = y + term
        return self.act(y)

    def _open(self) -> list[tuple[str, Tensor | None]]:
        """Return the branches that are executed, with their factors."""
        if self.gates is None:
            return [(name, None) for name in self.branch_names]
        values = self.gates.detach().tolist()
        return [
            (name, gate)
            for name, gate, value in zip(self.branch_names, self.gates, values, strict=True)
            if value != 0
        ]

    @torch.no_grad()
    def merged(self) -> Merged:
        """Return the block without its activation, in evaluation mode, as one 3x3 convolution.

        Raises:
            BadInput: Nothing of it is executed.
        """
        if self.deploy:
            own = bias_free(self.conv.weight)
            if self.norm is not None:
                return with_norm(own, self.norm)
            assert self.conv.bias is not None  # without a norm it has one
            return own[0], self.conv.bias.double()
        parts: list[Merged] = []
        if self.identity is not None:
            unit = identity(self.in_channels, 3, self.identity.weight)
            parts.append(with_norm(unit, self.identity))
        for name, gate in self._open():
            branch = self.branches[name]
            assert isinstance(branch, LinearBranch)
            weight, bias = branch.merged()
            factor = 1.0 if gate is None else gate.double()
            parts.append((weight * factor, bias * factor))
        if not parts:
            raise _nothing_open()
        return parallel(parts)

    @torch.no_grad()
    def deployed(self) -> RepBranches:
        """Return the block with the branches that are executed merged.

        Equal in evaluation mode, borders included.
        """
        if self.deploy and self.norm is None:
            return self
        block = RepBranches(
            self.in_channels, self.out_channels, self.stride, branches=self.branch_names,
            act=self.act_name, deploy=True,
        )  # fmt: skip
        block.conv = convolution(self.merged(), next(self.parameters()), self.stride, 1)
        return block.train(self.training)


def _nothing_open() -> BadInput:
    return BadInput(
        "all gates of a rep_branches block without identity are 0",
        "chipfit.supernet.top_k.with_floor leaves each layer its 3x3 branch",
    )
