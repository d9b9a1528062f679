# SPDX-License-Identifier: Apache-2.0
"""Random networks with much that is linear in them: chains, branches, shortcuts, concatenations."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Smallest image side that a layer still makes smaller.
SMALLEST = 5


class Scale(nn.Module):
    """``x * gamma``, ``x * 0.5``, ``x - mean`` or ``x / 2``, whichever was drawn."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.gamma = nn.Parameter(torch.randn(channels, 1, 1) * 0.3 + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        if self.kind == "gamma":
            return x * self.gamma
        if self.kind == "shift":
            return x - self.gamma
        return 0.5 * x if self.kind == "half" else x / 2


class Sum(nn.Module):
    """Branches of the same input, added up or subtracted, in place or not."""

    def __init__(self, branches: list[nn.Module], kind: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` as the branches do."""
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            if self.kind == "iadd" and total is not x:
                total += branch(x)
            elif self.kind == "sub":
                total = total - branch(x)
            else:
                total = torch.add(total, branch(x))
        return total


class Concat(nn.Module):
    """Branches of the same input, concatenated."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the channels of all branches."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class TwoReaders(nn.Module):
    """A linear layer whose output two others read, one behind an activation."""

    def __init__(self, first: nn.Module, second: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.act = first, second, act

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` as both layers do."""
        y = self.first(x)
        return self.second(y) + self.act(y)


class Functional(nn.Module):
    """A convolution and a batch norm as functions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / (3 * channels**0.5))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.randn(channels) * 0.1)
        self.register_buffer("variance", torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        y = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight)
        y = F.batch_norm(y, self.mean, self.variance)
        return F.dropout(y, 0.5, training=False)


class _Drawer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def conv(
        self, channels: int, out: int, kernel: int, stride: int = 1, padding: int | None = None
    ) -> nn.Conv2d:
        groups = [g for g in (1, 2, channels) if channels % g == 0 == out % g]
        dilation = 1 if padding is not None or stride > 1 else self.random.choice([1, 1, 1, 2])
        pad = (kernel - 1) * dilation // 2 if padding is None else padding
        return nn.Conv2d(
            channels, out, kernel, stride, pad, dilation,
            self.random.choice([1, 1, *groups]), bias=self.random.random() < 0.5,
        )  # fmt: skip

    def norm(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, affine=self.random.random() < 0.8)

    def act(self) -> nn.Module:
        makers: list[Callable[[], nn.Module]] = [
            nn.ReLU, nn.Hardswish, nn.GELU, lambda: nn.ReLU(inplace=True),
        ]  # fmt: skip
        return self.random.choice(makers)()

    def width(self) -> int:
        return self.random.choice([2, 3, 4, 6, 8])

    def same(self, channels: int, depth: int) -> nn.Module:
        """Draw a part that keeps channels and size."""
        kinds = [
            "conv", "conv", "identity", "norm", "bottleneck", "scale", "pool", "sum", "shortcut",
            "repvgg", "dbb", "readers", "functional", "padded",
        ]  # fmt: skip
        kind = self.random.choice(kinds if depth < 2 else kinds[:7])
        if kind == "conv":
            return self.conv(channels, channels, self.random.choice([1, 3, 5]))
        if kind == "identity":
            return self.random.choice([nn.Identity(), nn.Dropout(0.3), nn.Dropout2d(0.3)])
        if kind == "norm":
            return self.norm(channels)
        if kind == "bottleneck":
            hidden, kernel = channels * self.random.choice([2, 3]), self.random.choice([1, 3])
            padded = self.random.random() < 0.5
            first = nn.Conv2d(channels, hidden, 1, bias=not padded)
            middle = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
            return nn.Sequential(first, middle, nn.Conv2d(hidden, channels, 1))
        if kind == "scale":
            return Scale(channels, self.random.choice(["gamma", "shift", "half", "halved"]))
        if kind == "pool":
            return nn.AvgPool2d(3, 1, 1, count_include_pad=self.random.random() < 0.7)
        if kind in ("sum", "shortcut"):
            branches = [self.same(channels, depth + 1) for _ in range(self.random.choice([1, 2]))]
            if kind == "shortcut" and not isinstance(branches[-1], nn.Identity):
                branches = [nn.Identity(), *branches]
            return Sum(branches, self.random.choice(["add", "sub", "add"]))
        if kind == "repvgg":
            branches = [
                nn.Sequential(nn.Conv2d(channels, channels, k, padding=k // 2, bias=False),
                              self.norm(channels))
                for k in (3, 1)
            ]  # fmt: skip
            return Sum([*branches, self.norm(channels)], self.random.choice(["add", "iadd"]))
        if kind == "dbb":
            pooled = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False, padding=1),
                                   self.norm(channels), nn.AvgPool2d(3, 1))  # fmt: skip
            twice = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False),
                                  nn.Conv2d(channels, channels, 3, padding=1))  # fmt: skip
            return Sum([nn.Conv2d(channels, channels, 3, padding=1), twice, pooled], "add")
        if kind == "readers":
            first = self.conv(channels, channels, 3)
            second = self.conv(channels, channels, 1)
            return TwoReaders(first, second, self.random.choice([nn.ReLU(), nn.GELU()]))
        if kind == "functional":
            return Functional(channels)
        sides = self.random.choice([(1, 1, 1, 1), (0, 2, 0, 2), (2, 0, 1, 1)])
        inner = self.random.choice([nn.Identity(), nn.Conv2d(channels, channels, 1)])
        return nn.Sequential(nn.ZeroPad2d(sides), inner, self.conv(channels, channels, 3, 1, 0))

    def change(self, channels: int, out: int, size: int) -> tuple[nn.Module, int]:
        """Draw a part that changes channels, and the size where it is large enough."""
        kind = self.random.choice(["conv", "strided", "concat", "valid", "sesr", "branches"])
        if size <= SMALLEST and kind in ("strided", "valid", "branches"):
            kind = "conv"
        if kind == "conv":
            return self.conv(channels, out, self.random.choice([1, 3])), size
        if kind == "strided":
            kernel = self.random.choice([1, 2, 3, 5])
            return self.conv(channels, out, kernel, 2, (kernel - 1) // 2), -(-size // 2) - (
                kernel == 2 and size % 2
            )
        if kind == "concat" and out > 1:
            left = self.random.randint(1, out - 1)
            kernel = self.random.choice([1, 3])
            parts = [self.conv(channels, n, k) for n, k in ((left, kernel), (out - left, 3))]
            return Concat(list(parts)), size
        if kind == "valid":
            return self.conv(channels, out, 3, 1, 0), size - 2
        if kind == "branches":
            parts = [nn.Conv2d(channels, out, k, 2, k // 2) for k in (3, 1)]
            pooled = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.AvgPool2d(3, 2, 1))
            return Sum([*parts, pooled], "add"), -(-size // 2)
        hidden = 2 * channels
        return nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
                             nn.Conv2d(hidden, out, 1)), size  # fmt: skip


def random_network(seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a random network in evaluation mode and the shape ``(N, C, H, W)`` of its input.

    Parts are linear or activations; sizes are odd and even, batch norms have statistics of their
    own, and every third network ends in a classifier of linear layers.

    Args:
        seed: Two networks of the same seed are equal, weights included.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw = _Drawer(seed)
        channels, size = draw.width(), draw.random.randint(7, 14)
        shape = (2, channels, size, size + draw.random.randint(0, 2))
        parts: list[nn.Module] = []
        for _ in range(draw.random.randint(2, 5)):
            if draw.random.random() < 0.4:
                out = draw.width()
                part, size = draw.change(channels, out, size)
                channels = out
            else:
                part = draw.same(channels, 0)
            parts.append(part)
            if draw.random.random() < 0.4:
                parts.append(draw.norm(channels))
            if draw.random.random() < 0.3:
                parts.append(draw.act())
        if seed % 3 == 0:
            parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
                      nn.Linear(channels, 12), nn.BatchNorm1d(12), nn.Linear(12, 5)]  # fmt: skip
        net = nn.Sequential(*parts)
        settle(net)
    return net.eval(), shape


def settle(net: nn.Module) -> None:
    """Draw weights and statistics of batch norms, as after training."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.running_mean is None or module.running_var is None:
                    continue
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.3)
