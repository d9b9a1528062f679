# SPDX-License-Identifier: Apache-2.0
"""``Task``: the user's side of a fit, that is data, loss and metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chipfit.train.contexts import channels_last
from chipfit.train.distill import distillation_loss
from chipfit.train.recipe import Recipe

#: Splits that :meth:`Task.evaluate` knows.
SPLITS = ("train", "val", "test")


class Batch(NamedTuple):
    """Inputs ``(N, C, H, W)``, float32 and normalised, with what they should give."""

    inputs: Tensor
    targets: Tensor


class Task(ABC):
    """What a network is for. A task of your own subclasses this and fills in the abstract methods.

    Tasks travel to worker processes by *how they were made*, not by their arrays: those made by
    :func:`chipfit.tasks.load_task` or :func:`chipfit.tasks.classification` are made again there.
    """

    #: Shown in reports.
    name: str
    #: Key of :meth:`evaluate`'s result that decides.
    metric: str = "accuracy"
    #: Direction of the metric.
    higher_is_better: bool = True
    #: ``(1, C, H, W)``.
    input_shape: tuple[int, int, int, int]
    #: Outputs of the network; 0 where the task does not classify.
    num_classes: int = 0
    #: How to train for it from scratch.
    recipe: Recipe = Recipe()
    #: ``(model, steps, seed, teacher)`` trains in place of our loop, where the task has a loop of
    #: its own; ``None`` where it gives batches and a loss.
    own_training: Callable[[nn.Module, int, int, nn.Module | None], None] | None = None
    #: Whether there are calibration inputs; int8 files cannot be made without.
    calibrates: bool = True

    _origin: tuple[Callable[..., Task], tuple[Any, ...]] | None = None

    @abstractmethod
    def steps_per_epoch(self, batch_size: int) -> int:
        """Return how many batches :meth:`train_batches` yields; at least 1."""

    @abstractmethod
    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, start: int = 0, augment: bool = True
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch, the same ones for the same arguments.

        Args:
            batch_size: Images in every batch.
            seed: Of the run.
            epoch: From 0; each has another order.
            start: First batch to yield. Batch ``i`` must not depend on it: a training that was cut
                off continues here.
            augment: Whether images may be augmented.
        """

    @abstractmethod
    def criterion(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the loss, a scalar, of the network's outputs for ``batch``."""

    @abstractmethod
    def evaluate(
        self, model: Callable[[Tensor], Tensor], split: str = "val", limit: int | None = None
    ) -> dict[str, float]:
        """Return metrics on a split, :attr:`metric` among them, and ``images``.

        A module is put into evaluation mode and back.

        Args:
            model: A network, or any function from inputs to outputs.
            split: One of :data:`SPLITS`; reading ``test`` is counted in :attr:`test_reads`.
            limit: Use the first so many images only.
        """

    @abstractmethod
    def calibration_batches(self, count: int, batch_size: int = 1) -> list[Tensor]:
        """Return ``count`` batches ``(batch_size, C, H, W)`` of training inputs, not augmented.

        They are the same for every call, and fewer where there are not so many images.
        """

    @abstractmethod
    def test_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return test inputs ``(N, C, H, W)`` and their targets; a counted reading."""

    @property
    @abstractmethod
    def test_reads(self) -> int:
        """How often the test split was read in this process."""

    def halves(self, seed: int) -> tuple[Task, Task]:
        """Return two tasks that share the training data: no image is in both.

        Searches train weights on the first and architecture parameters on the second. By default
        the batches of one epoch, in the order of ``seed``, go to them in turn.

        Args:
            seed: Decides which image goes where.
        """
        from chipfit.tasks.wrapped import EveryOther

        return EveryOther(self, 0, seed), EveryOther(self, 1, seed)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the network's outputs for ``batch``."""
        return model(batch.inputs)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the training loss, a scalar."""
        return self.criterion(self.forward(model, batch), batch)

    def distillation(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Return the loss that pulls the student's outputs to the teacher's, a scalar."""
        return distillation_loss(student, teacher, temperature)

    def example_input(self) -> Tensor:
        """Return one input ``(1, C, H, W)`` for tracing and export."""
        return self.calibration_batches(1)[0]

    def parity_inputs(self, count: int) -> Tensor:
        """Return ``(count, C, H, W)`` inputs, or fewer, to compare exported files on."""
        return torch.cat(self.calibration_batches(count))

    def better(self, metric: float, than: float) -> bool:
        """Return whether one value of the metric beats another."""
        return metric > than if self.higher_is_better else metric < than

    def made_by(self, factory: Callable[..., Task], *arguments: Any) -> Task:
        """Remember how to make this task again in another process; return it.

        Args:
            factory: An importable function.
            *arguments: Its arguments, picklable.
        """
        self._origin = (factory, arguments)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._origin if self._origin is not None else super().__reduce_ex__(protocol)


@contextmanager
def evaluating(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put a module into evaluation mode and a fast layout meanwhile, and keep no gradients."""
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            modes = {module: module.training for module in model.modules()}
            stack.callback(_restore_modes, modes)
            stack.enter_context(channels_last(model))
            model.eval()
        stack.enter_context(torch.inference_mode())
        yield


def _restore_modes(modes: dict[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode
