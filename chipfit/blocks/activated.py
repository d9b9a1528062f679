# SPDX-License-Identifier: Apache-2.0
"""``Activated``: another block of the registry with an activation behind it.

What ends linearly (an inverted residual) cannot stand for what ends with an activation: a plain
convolution with its ReLU, or a residual block with the ReLU behind its sum, as in He et al., "Deep
Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385, figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from chipfit.blocks.conv_bn_act import activation_module
from chipfit.blocks.registry import create_block, register_block


@register_block(
    "activated",
    summary="another block with an activation behind it, and behind its shortcut",
    source="He et al., CVPR 2016, arXiv 1512.03385",
)
class Activated(nn.Sequential):
    """A block and an activation; children are ``0`` and ``1``.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the block.
        block: Name of the block.
        act: Key of :data:`~chipfit.blocks.conv_bn_act.ACTIVATION_MODULES`.
        options: Of the block; JSON values.

    Raises:
        UnknownName: There is no such block.
        BadInput: It cannot be built, or there is no such activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        block: str = "inverted_residual",
        act: str = "relu",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        inner = create_block(block, in_channels, out_channels, stride, **(options or {}))
        super().__init__(inner, activation_module(act))
