# SPDX-License-Identifier: Apache-2.0
"""A training loop of one's own: two functions are a task.

chipfit fit examples/own_loop.py:net --target ethos-u55-128 --budget latency_ms=80% \
        --data examples/own_loop.py --run runs/own-loop
"""

import torch
from torch import nn
from torch.nn import functional

from chipfit.tasks import classification

images = classification("digits")  # stands for your own data: any iterable of batches will do
num_classes, higher_is_better, steps_per_epoch = 10, True, 20


def evaluate(model: nn.Module, split: str) -> float:
    """Return a number, here the accuracy; ``split`` may be left out where there is no test set."""
    return images.evaluate(model, split)["accuracy"]


def finetune(model: nn.Module, steps: int) -> None:
    """Train in place for so many steps: any optimizer, any loss, any framework around it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        batch = next(images.train_batches(64, seed=0, epoch=step // 20, start=step % 20))
        optimizer.zero_grad()
        functional.cross_entropy(model(batch.inputs), batch.targets).backward()
        optimizer.step()


def calibration() -> torch.Tensor:
    """Return some training inputs; for int8 files, and for what is solved."""
    return torch.cat(images.calibration_batches(256))


def net(num_classes: int = 10) -> nn.Module:
    """Return any network of yours."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )  # fmt: skip
