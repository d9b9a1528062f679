# SPDX-License-Identifier: Apache-2.0
"""``pool``: pooling that keeps the size, or halves it, as an operation of a cell."""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "pool",
    summary="average or maximum of the pixels around",
    source="Liu et al., DARTS, ICLR 2019, arXiv 1806.09055",
)
class Pool(nn.Module):
    """Average or maximum over a window; pixels beyond the border do not count.

    Args:
        in_channels: Input channels.
        out_channels: The same.
        stride: Of the window.
        kind: ``"avg"`` or ``"max"``.
        kernel: Of the window; odd.

    Raises:
        BadInput: Channels differ, the kind is unknown, or the kernel even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        kind: str = "avg",
        kernel: int = 3,
    ) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise BadInput(
                f"a pooling from {in_channels} to {out_channels} channels: it keeps its channels"
            )
        if kind not in ("avg", "max") or kernel < 1 or kernel % 2 == 0:
            raise BadInput(
                f"kind={kind!r} with kernel={kernel} of a pooling", "avg or max, and an odd kernel"
            )
        self.pool: nn.Module = (
            nn.MaxPool2d(kernel, stride, kernel // 2)
            if kind == "max"
            else nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H / stride, W / stride)``."""
        return self.pool(x)
