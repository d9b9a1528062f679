# SPDX-License-Identifier: Apache-2.0
"""Tasks: data, loss and metric of what a network is for."""

from chipfit.tasks.augment import Augmentation
from chipfit.tasks.base import Batch, Task
from chipfit.tasks.classification import Classification, classification
from chipfit.tasks.own_loop import OwnLoop
from chipfit.tasks.user import load_task

__all__ = [
    "Augmentation", "Batch", "Classification", "OwnLoop", "Task", "classification", "load_task",
]  # fmt: skip
