# SPDX-License-Identifier: Apache-2.0
"""``OwnLoop``: a task made of two functions of the user's, ``evaluate`` and ``finetune``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from chipfit.errors import BadInput, BadTask, ChipfitError
from chipfit.tasks.base import SPLITS, Batch, Task, evaluating
from chipfit.train.randomness import generator, private_global_stream, seed_global_stream

#: Steps that count as an epoch where the file does not define ``steps_per_epoch``.
STEPS_PER_EPOCH = 100
#: Name of the metric where the file does not define ``metric``.
METRIC = "score"
#: What a file may define besides its two functions.
OPTIONAL = (
    "calibration", "higher_is_better", "input_shape", "metric", "num_classes", "steps_per_epoch",
)  # fmt: skip


class OwnLoop(Task):
    """Training and evaluation are the user's own; chipfit decides what to train and for how long.

    ``finetune`` runs with torch seeded, so that the same seed gives the same result where the loop
    draws from torch alone. Batch size, learning rate and loss are the loop's: a recipe's number of
    steps applies, the rest of it does not. A method that needs batches and a loss, because it
    computes gradients itself, is refused with what to define.

    Args:
        name: Shown in reports.
        evaluate: ``evaluate(model)`` returns a number, or a dict with :attr:`metric`. The model is
            in evaluation mode, and may be an exported file behind the same call. With a parameter
            ``split`` it is told ``"val"`` or ``"test"``; without one the same images judge the
            search and the report.
        finetune: ``finetune(model, steps)`` trains in place for so many optimizer steps. With a
            parameter ``teacher`` it is given the original network, or ``None``, to distil from.
        input_shape: ``(1, C, H, W)``; that of the calibration inputs where ``None``.
        calibration: Returns inputs ``(N, C, H, W)`` of training images, or several such tensors.
            Int8 files need it and are left out without it; ``auto``
            solves weights from these inputs.
        higher_is_better: Direction of the metric.
        metric: Its name.
        num_classes: Outputs of the network; 0 where it does not classify.
        steps_per_epoch: Steps that count as one epoch of a recipe.

    Raises:
        BadTask: There is neither an input shape nor a calibration function.
    """

    def __init__(
        self,
        name: str,
        evaluate: Callable[..., Any],
        finetune: Callable[..., Any],
        *,
        input_shape: tuple[int, ...] | None = None,
        calibration: Callable[[], Tensor | Iterable[Tensor]] | None = None,
        higher_is_better: bool = True,
        metric: str = METRIC,
        num_classes: int = 0,
        steps_per_epoch: int = STEPS_PER_EPOCH,
    ) -> None:
        self.name, self.metric, self.higher_is_better = name, metric, bool(higher_is_better)
        self.num_classes, self._steps_per_epoch = int(num_classes), int(steps_per_epoch)
        self._evaluate, self._finetune, self._calibration = evaluate, finetune, calibration
        self._inputs: Tensor | None = None
        self._test_reads = 0
        self.calibrates = calibration is not None
        self.own_training = self._train
        if input_shape is None:
            if calibration is None:
                raise BadTask(
                    f"{name} says no input_shape",
                    "define input_shape = (1, C, H, W), or calibration()",
                )
            input_shape = (1, *self._calibration_inputs().shape[1:])
        self.input_shape = tuple(input_shape)  # type: ignore[assignment]

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return how many steps count as one epoch; the loop has its own batch size."""
        return self._steps_per_epoch

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, start: int = 0, augment: bool = True
    ) -> Iterator[Batch]:
        """Refuse: the loop keeps its batches to itself.

        Raises:
            BadInput: Always.
        """
        self._refuse("training batches")

    def criterion(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Refuse: the loop keeps its loss to itself.

        Raises:
            BadInput: Always.
        """
        self._refuse("a loss")

    def distillation(self, student: Any, teacher: Any, temperature: float) -> Tensor:
        """Return how far outputs are from the teacher's, a scalar; 0 for equal ones.

        Divergence of the probabilities where there are classes; else the mean square of what is
        off, relative to the teacher's variance, over all tensors that the network returns.

        Raises:
            BadInput: It returns none.
        """
        if self.num_classes and isinstance(student, Tensor) and isinstance(teacher, Tensor):
            return super().distillation(student, teacher, temperature)
        parts = [
            (a - b).double().square().mean() / b.double().var(correction=0).clamp(min=1e-12)
            for a, b in zip(tree_leaves(student), tree_leaves(teacher), strict=True)
            if isinstance(a, Tensor) and a.is_floating_point()
        ]
        if not parts:
            raise BadInput(f"the network of {self.name} returns no tensor of numbers to compare")
        return torch.stack(parts).mean()

    def _refuse(self, what: str) -> NoReturn:
        raise BadInput(
            f"this method needs {what} of its own, and the task {self.name} trains through "
            "finetune(model, steps) alone",
            "define make_task() that returns a chipfit.tasks.Task with train_batches() and "
            "criterion(), or use --method netadapt, which needs neither",
        )

    def evaluate(
        self, model: Callable[[Tensor], Tensor], split: str = "val", limit: int | None = None
    ) -> dict[str, float]:
        """Return what the user's ``evaluate`` says of ``model``; ``limit`` is not passed on.

        Raises:
            BadTask: It failed, or returned no finite number for the metric.
        """
        if split not in SPLITS:
            raise BadInput(f"unknown split {split!r}", f"known: {', '.join(SPLITS)}")
        self._test_reads += split == "test"
        module = model if isinstance(model, nn.Module) else _Called(model)
        told = {"split": split} if _takes(self._evaluate, "split") else {}
        with evaluating(module), private_global_stream():
            seed_global_stream(0)
            found = self._call(self._evaluate, module, **told)
        values = found if isinstance(found, dict) else {self.metric: found}
        if self.metric not in values:
            raise BadTask(
                f"evaluate() of {self.name} returned {sorted(values)}, not {self.metric!r}",
                'say which one decides: metric = "..."',
            )
        try:
            numbers = {str(key): float(value) for key, value in values.items()}
        except (TypeError, ValueError) as error:
            raise BadTask(f"evaluate() of {self.name} returned no number: {error}") from error
        if not math.isfinite(numbers[self.metric]):
            raise BadTask(f"evaluate() of {self.name} returned {numbers[self.metric]}")
        return numbers

    def _train(self, model: nn.Module, steps: int, seed: int, teacher: nn.Module | None) -> None:
        told = {"teacher": teacher} if _takes(self._finetune, "teacher") else {}
        with private_global_stream():
            seed_global_stream(seed)
            self._call(self._finetune, model, steps, **told)

    def calibration_batches(self, count: int, batch_size: int = 1) -> list[Tensor]:
        """Return ``count`` batches ``(batch_size, C, H, W)`` of the calibration inputs.

        Raises:
            BadInput: The file defines no ``calibration()``.
            BadTask: It failed or returned something else than inputs.
        """
        inputs = self._calibration_inputs()[: count * batch_size]
        return list(inputs.split(batch_size))

    def parity_inputs(self, count: int) -> Tensor:
        """Return calibration inputs, or noise drawn from a fixed seed where there are none."""
        if self.calibrates:
            return super().parity_inputs(count)
        return torch.randn(count, *self.input_shape[1:], generator=generator(0))

    def example_input(self) -> Tensor:
        """Return one of the :meth:`parity_inputs`, ``(1, C, H, W)``."""
        return self.parity_inputs(1)

    def test_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Refuse: the loop keeps its images to itself.

        Raises:
            BadInput: Always.
        """
        self._refuse("test images")

    @property
    def test_reads(self) -> int:
        """How often the test split was evaluated in this process."""
        return self._test_reads

    def _calibration_inputs(self) -> Tensor:
        if self._calibration is None:
            raise BadInput(
                f"the task {self.name} has no calibration inputs, which an int8 file and "
                "BatchNorm statistics need",
                "define calibration() that returns training inputs (N, C, H, W)",
            )
        if self._inputs is None:
            found = self._call(self._calibration)
            parts = [found] if isinstance(found, Tensor) else list(found)
            if not parts or not all(isinstance(p, Tensor) and p.dim() == 4 for p in parts):
                raise BadTask(
                    f"calibration() of {self.name} returned no inputs (N, C, H, W)",
                    "return a tensor, or several, as the network takes them",
                )
            self._inputs = torch.cat(parts).detach().float()
        return self._inputs

    def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except ChipfitError:
            raise
        except Exception as error:  # the user's code may raise anything
            called = getattr(function, "__name__", "a function")
            raise BadTask(
                f"{called}() of {self.name} failed: {type(error).__name__}: {error}"
            ) from error


class _Called(nn.Module):
    """A function from inputs to outputs, for code that expects a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self._function(inputs)


def _takes(function: Callable[..., Any], parameter: str) -> bool:
    return parameter in inspect.signature(function).parameters
