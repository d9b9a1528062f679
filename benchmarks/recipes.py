# SPDX-License-Identifier: Apache-2.0
"""Networks of four families from recipes: stages, widths, kernels, expansions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

_CLASSES = 1000
_ACTS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish, "gelu": nn.GELU,
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """Blocks at one resolution.

    Args:
        width: Output channels.
        depth: Number of blocks.
        stride: Of the first block.
        kernel: Of the spatial convolutions.
        expansion: Hidden channels per channel.
        squeeze: Whether blocks carry squeeze-and-excitation.
        collapsed: Which blocks are one pre-activated dense convolution (``ran`` only).
    """

    width: int
    depth: int
    stride: int
    kernel: int = 3
    expansion: int = 4
    squeeze: bool = False
    collapsed: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A network in few words; :func:`build` makes it.

    Args:
        family: One of :data:`benchmarks.random_networks.FAMILIES`.
        seed: It was drawn with.
        size: Input pixels.
        stem: Channels of the stem.
        act: Activation.
        stages: From the largest resolution to the smallest.
        head: Channels of a 1x1 convolution before the classifier, 0 for none.
        bottleneck: Whether a ``resnet`` has bottleneck blocks.
    """

    family: str
    seed: int
    size: int
    stem: int
    act: str
    stages: tuple[Stage, ...]
    head: int = 0
    bottleneck: bool = False

    def scaled(self, factor: float) -> Recipe:
        """Return a copy with all widths multiplied; multiples of 8 stay multiples of 8."""

        def width(old: int) -> int:
            step = 8 if old % 8 == 0 else 1
            return max(8, round(old * factor / step) * step)

        stages = tuple(replace(s, width=width(s.width)) for s in self.stages)
        head = width(self.head) if self.head else 0
        return replace(self, stem=width(self.stem), stages=stages, head=head)


class _Conv(nn.Sequential):
    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: str = ""
    ) -> None:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(c_out), *([_ACTS[act]()] if act else []))


class _Squeeze(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(8, width // 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(
            nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x))


class _Residual(nn.Module):
    """``body``, with a shortcut where shapes allow one."""

    def __init__(self, body: nn.Module, shortcut: bool, project: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.project = body, shortcut, project

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.project is not None:
            return y + self.project(x)
        return x + y if self.shortcut else y


class _ConvNextBlock(nn.Module):
    def __init__(self, width: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.act = nn.Linear(width, expansion * width), nn.GELU()
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(0.1 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = self.down(self.act(self.up(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


class _ChannelNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _inverted(c: int, stage: Stage, stride: int, act: str) -> nn.Module:
    hidden = c * stage.expansion
    layers: list[nn.Module] = [_Conv(c, hidden, 1, act=act)] if stage.expansion > 1 else []
    layers.append(_Conv(hidden, hidden, stage.kernel, stride, hidden, act))
    layers += [_Squeeze(hidden)] if stage.squeeze else []
    layers.append(_Conv(hidden, stage.width, 1))
    return _Residual(nn.Sequential(*layers), stride == 1 and c == stage.width)


def _collapsed(c: int, stage: Stage, stride: int, act: str) -> nn.Module:
    conv = nn.Conv2d(c, stage.width, stage.kernel, stride, stage.kernel // 2)
    return _Residual(nn.Sequential(_ACTS[act](), conv), stride == 1 and c == stage.width)


def _basic(c: int, stage: Stage, stride: int, bottleneck: bool) -> nn.Module:
    project = _Conv(c, stage.width, 1, stride) if stride > 1 or c != stage.width else None
    if bottleneck:
        inner = max(8, stage.width // 4)
        body = nn.Sequential(
            _Conv(c, inner, 1, act="relu"), _Conv(inner, inner, 3, stride, act="relu"),
            _Conv(inner, stage.width, 1),
        )  # fmt: skip
    else:
        body = nn.Sequential(
            _Conv(c, stage.width, 3, stride, act="relu"), _Conv(stage.width, stage.width, 3)
        )
    return nn.Sequential(_Residual(body, True, project), nn.ReLU())


def build(recipe: Recipe, npu: bool = False) -> nn.Module:
    """Return the network.

    Args:
        recipe: What to build.
        npu: Replace layer norm by batch norm and GELU by ReLU (``convnext`` only).
    """
    c, act = recipe.stem, recipe.act
    layers: list[nn.Module] = []
    if recipe.family == "convnext":
        layers.append(nn.Conv2d(3, c, 4, 4))
        layers.append(nn.BatchNorm2d(c) if npu else _ChannelNorm(c))
    elif recipe.family == "resnet":
        layers += [_Conv(3, c, 7, 2, act=act), nn.MaxPool2d(3, 2, 1)]
    else:
        layers.append(_Conv(3, c, 3, 2, act=act))
    for stage in recipe.stages:
        for i in range(stage.depth):
            stride = stage.stride if i == 0 else 1
            if recipe.family == "convnext":
                if i == 0 and layers[2:]:
                    layers += [] if npu else [_ChannelNorm(c)]
                    layers.append(nn.Conv2d(c, stage.width, 2, 2))
                    layers += [nn.BatchNorm2d(stage.width)] if npu else []
                if npu:
                    body = nn.Sequential(
                        _Conv(stage.width, stage.width, stage.kernel, 1, stage.width),
                        _Conv(stage.width, stage.expansion * stage.width, 1, act="relu"),
                        _Conv(stage.expansion * stage.width, stage.width, 1),
                    )
                    layers.append(_Residual(body, True))
                else:
                    layers.append(_ConvNextBlock(stage.width, stage.kernel, stage.expansion))
            elif recipe.family == "resnet":
                layers.append(_basic(c, stage, stride, recipe.bottleneck))
            elif stage.collapsed and stage.collapsed[i]:
                layers.append(_collapsed(c, stage, stride, act))
            else:
                layers.append(_inverted(c, stage, stride, act))
            c = stage.width
    if recipe.head:
        layers.append(_Conv(c, recipe.head, 1, act=act))
        c = recipe.head
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, _CLASSES))
