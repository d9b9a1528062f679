# SPDX-License-Identifier: Apache-2.0
"""``Method``: one paper; it sees a problem and yields the candidates that it decides for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import nn

from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.registry import Registry
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run

if TYPE_CHECKING:
    from chipfit.cost.table import CostTable
    from chipfit.targets.base import Target
    from chipfit.tasks.base import Task
    from chipfit.workers import WorkerPool


T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """What a method is asked to solve.

    Args:
        net: The trained original, on the CPU.
        example: Its input, ``(1, C, H, W)``.
        task: Data, loss and metric; a method reads the train and validation splits only.
        target: The device.
        table: Its look-up table.
        budget: Absolute bounds.
        original: The original as a candidate, with validation accuracy and cost.
        pool: Worker processes whose setup is a :class:`chipfit.train.jobs.Bench`.
        seed: Everything random derives from it.
        options: Settings of the method by name.
        keep: Prefixes of modules whose widths stay.
        calibration: Factor from sums of table rows to whole networks (measured targets).
        progress: Called with one line for the user at every step worth telling.
        memo: What is costly to find out and depends on network, target and table only, shared by
            copies of the problem with another budget, seed or options.
    """

    net: nn.Module
    example: torch.Tensor
    task: Task
    target: Target
    table: CostTable
    budget: Budget
    original: Candidate
    pool: WorkerPool
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    calibration: float = 1.0
    progress: Callable[[str], None] = lambda line: None
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def val_metric(self) -> str:
        """Key of the metric on validation data, ``val_accuracy`` for classification."""
        return f"val_{self.task.metric}"

    def once(self, kind: str, wanted: Any, make: Callable[[], T]) -> T:
        """Return what ``make`` makes, the same object wherever the same is wanted again.

        Args:
            kind: What is made.
            wanted: All that it depends on, besides network, target and table; compared by equality.
            make: Called where nothing of this kind was made for an equal ``wanted``.
        """
        known: list[tuple[Any, T]] = self.memo.setdefault(kind, [])
        for what, made in known:
            if what == wanted:
                return made
        known.append((wanted, make()))
        return known[-1][1]

    @property
    def original_cost(self) -> Cost:
        """The original's true cost."""
        return Cost(dict(self.original.cost), self.original.provenance)


class Method(Protocol):
    """One paper's way to decide.

    A method records every finished piece of work in the run and recalls it after a restart, so
    calling :meth:`search` again, even with a tighter budget, continues instead of starting over.
    """

    #: Accepted options by name with their default values. A method may also say
    #: ``many_processes`` (one torchrun can search together) and ``own_loops`` (it works with tasks
    #: that train by functions of the user's, and give neither batches nor a loss).
    defaults: Mapping[str, Any]

    def check(self, problem: Problem) -> None:
        """Raise ``InfeasibleBudget`` where the budget cannot be met; needs no trained weights."""
        ...

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield candidates in the order in which they are decided, cheapest last.

        Raises:
            InfeasibleBudget: Nothing reachable meets the budget; the message names the cheapest.
            BadInput: An option is unknown or has no effect that the budget could be met with.
        """
        ...


#: Methods by name: ``METHODS.get(name).value() -> Method``.
METHODS: Registry = Registry("method", "chipfit.methods")
