# SPDX-License-Identifier: Apache-2.0
"""``ResNet8``: the size of MLPerf Tiny's image classifier, with batch norms: 12.5 M MACs at 32."""

from __future__ import annotations

import torch
from torch import nn

from chipfit.blocks.basic_residual import BasicResidual
from chipfit.nets import create
from chipfit.tasks import Task
from chipfit.train.randomness import private_global_stream, seed_global_stream

NAME = "resnet8"
#: Channels and first stride of each residual block, behind a stem of as many channels.
BLOCKS = ((16, 1), (32, 2), (64, 2))


class ResNet8(nn.Module):
    """A 3x3 stem, three basic residual blocks, global average pooling and a classifier.

    Banbury et al., "MLPerf Tiny Benchmark", NeurIPS Datasets and Benchmarks 2021.

    Args:
        num_classes: Outputs.
        in_channels: Of the images.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = BLOCKS[0][0]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        blocks = []
        for width, stride in BLOCKS:
            blocks.append(BasicResidual(channels, width, stride))
            channels = width
        self.layers = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.pool(x).flatten(1))


def network(name: str, task: Task, seed: int = 0) -> nn.Module:
    """Return ``resnet8`` or a network of the zoo for a task, with weights drawn from a seed."""
    if name != NAME:
        return create(name, num_classes=task.num_classes, input_shape=task.input_shape, seed=seed)
    with private_global_stream():
        seed_global_stream(seed)
        return ResNet8(task.num_classes, task.input_shape[1])
