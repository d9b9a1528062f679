# SPDX-License-Identifier: Apache-2.0
"""What :mod:`benchmarks.mcu_budgets` narrows, and the plainest way to prune it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.narrowing import RATIOS
from chipfit.graph.channels import channel_groups
from chipfit.methods.widths import filter_norms, keep_largest
from chipfit.rewrite import edits_for, side_sizes, slice_channels
from chipfit.train.randomness import private_global_stream, seed_global_stream


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(width_in, width, 3, stride)
        self.second = _conv(width, width, 3, 1)[:2]
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else _conv(width_in, width, 1, stride)[:2]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width_in, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        return torch.relu(self.shortcut(x) + self.second(self.first(x)))


def _conv(width_in: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def residual_network(width: int, channels: int, classes: int, seed: int = 0) -> nn.Module:
    """Return three residual blocks at three resolutions, of 1, 2 and 4 times ``width``."""
    with private_global_stream():
        seed_global_stream(seed)
        return nn.Sequential(
            _conv(channels, width, 3, 1), Block(width, width, 1), Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4 * width, classes),
        )  # fmt: skip


class GlobalMagnitude:
    """One-shot pruning of the filters of smallest norm, relative to the mean of their group.

    Every rung removes a share of all channels that can go; widths are then rounded to the nearest
    multiple of the alignment, one at least.

    Args:
        net: The trained original; its weights are inherited.
        example: Its input, ``(1, C, H, W)``.
        alignment: Widths are multiples of it.
    """

    def __init__(self, net: nn.Module, example: Tensor, alignment: int) -> None:
        self._net, self._step = net, alignment
        self._groups = channel_groups(net, example)
        self._free = {g.name: g for g in self._groups if not g.frozen}
        ranked: list[tuple[float, str]] = []
        for name, group in self._free.items():
            norms = filter_norms(net, group, range(group.channels))
            ranked += [(float(n / norms.mean()), name) for n in norms]
        self._order = [name for _, name in sorted(ranked)]

    def __len__(self) -> int:
        return RATIOS

    def widths(self, rung: int) -> dict[str, int]:
        """Return the width of every group that can change; the last rung leaves them whole."""
        gone = self._order[: round(len(self._order) * (RATIOS - 1 - rung) / RATIOS)]
        found = {}
        for name, group in self._free.items():
            left = group.channels - gone.count(name)
            aligned = int(left / self._step + 0.5) * self._step
            found[name] = min(group.channels, max(self._step, aligned))
        return found

    def __getitem__(self, rung: int) -> nn.Module:
        kept = {
            name: keep_largest(self._net, self._free[name], range(self._free[name].channels), width)
            for name, width in self.widths(rung).items()
        }
        edits = edits_for(self._groups, kept, side_sizes(self._net))
        return slice_channels(self._net, edits)

    def describe(self, rung: int) -> str:
        """Return the widths of a rung."""
        return "-".join(str(width) for width in self.widths(rung).values())
