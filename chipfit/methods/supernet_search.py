# SPDX-License-Identifier: Apache-2.0
"""``SupernetSearch``: what all searches on one supernet share; a paper says what a step is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from chipfit.cost.cost import Cost
from chipfit.files import read_state, write_state
from chipfit.methods.base import Problem
from chipfit.methods.levels import family_levels, next_limits
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text
from chipfit.methods.space_costs import SpaceCosts, costs_of
from chipfit.methods.space_reach import best_rows, check_space
from chipfit.methods.supernet_members import Member, judge, member, open_space
from chipfit.methods.supernet_records import recorder
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.space.blocks import BlockSpace
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.supernet import Supernet
from chipfit.tasks.base import Task
from chipfit.train.randomness import stream_seed

Values = NDArray[np.float64]

#: Options of every search, with their defaults.
COMMON: Mapping[str, Any] = {
    "search_epochs": 4.0, "search_steps": 0, "batch_size": 64, "learning_rate": 0.05,
    "architecture_rate": 0.02, "warmup": 0.3, "every": 1,
    "temperature_start": 1.0, "temperature_end": 1.0, "penalty": "constraint", "strength": 0.0,
    "levels": 1, "proposals": 4, "floor": 0.95, "val_images": 2000, "retrain": True,
    "kernels": (3, 5), "expansions": (2.0, 3.0, 6.0), "skip": True,
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A problem with its space and costs.

    Args:
        settings: Of the method.
        blocks: The space.
        costs: Of its architectures.
        run: Where the search remembers; ``None`` where the problem is only looked at.
    """

    settings: Mapping[str, Any]
    blocks: BlockSpace
    costs: SpaceCosts
    run: Run | None = None


class SupernetSearch(ABC):
    """A search on one supernet under a budget; subclasses say what a step of it is.

    The space is the network's own (``block_space``), or is made of its inverted residuals, with
    ``kernels``, ``expansions`` and ``skip`` as candidates.

    Weights and logits are trained in turn on two halves of the training data, for ``search_epochs``
    passes over one half (or ``search_steps`` where positive), the first ``warmup`` share of them
    weights only. ``penalty`` and ``strength`` (0: the one that goes with it) say what the budget
    adds to the loss (:class:`~chipfit.supernet.pressure.Pressure`).

    At each of ``levels`` budgets from the original's cost to the one asked for, the ``proposals``
    most probable architectures that cost between ``floor`` times the budget and the budget are
    judged by the supernet's weights on ``val_images`` held-out images, and the best is kept. It is
    trained anew (``retrain``) or fine-tuned from the weights that it inherits.
    """

    #: Name of the method, and prefix of its records.
    name: ClassVar[str] = ""
    #: Options of this method, or other defaults of common ones.
    own: ClassVar[Mapping[str, Any]] = {}
    #: Whether the processes of one ``torchrun`` can search together.
    many_processes: ClassVar[bool] = True
    #: Common options that mean nothing to this method.
    unused: ClassVar[frozenset[str]] = frozenset()

    #: Options by name with their default values.
    defaults: ClassVar[Mapping[str, Any]] = COMMON

    def __init_subclass__(cls) -> None:
        """Join the options of a method with the common ones."""
        super().__init_subclass__()
        options = {**COMMON, **cls.own}
        cls.defaults = {name: v for name, v in options.items() if name not in cls.unused}

    def make_supernet(self, problem: Problem, opened: Opened) -> Supernet:
        """Return the supernet at its start."""
        seed = stream_seed(problem.seed, self.name, "weights")
        return Supernet(problem.net, opened.blocks, seed=seed)

    @abstractmethod
    def make_rule(self, problem: Problem, opened: Opened) -> SearchRule:
        """Return what a step of the search is."""

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ``BadInput`` where an option is out of range."""
        ranges = {
            "levels": int(settings["levels"]) >= 1,
            "proposals": int(settings["proposals"]) >= 1,
            "val_images": int(settings["val_images"]) >= 1,
            "search_epochs": float(settings["search_epochs"]) > 0,
            "search_steps": int(settings["search_steps"]) >= 0,
            "floor": 0 <= float(settings["floor"]) <= 1,
        }
        require_in_range(self.name, settings, ranges)

    def derive_rows(
        self, opened: Opened, probabilities: Sequence[Values], limits: Mapping[str, float]
    ) -> list[tuple[int, ...]]:
        """Return the architectures to judge, as option indices, the most probable first."""
        settings = opened.settings
        with np.errstate(divide="ignore"):
            scores = [np.log(p) for p in probabilities]
        return best_rows(
            opened.costs, scores, limits, int(settings["proposals"]), float(settings["floor"])
        )

    def rows(
        self, problem: Problem, opened: Opened, supernet: Supernet, limits: Mapping[str, float]
    ) -> list[tuple[int, ...]]:
        """Return the architectures to judge, the best first."""
        with torch.no_grad():
            probabilities = [p.numpy() for p in supernet.probabilities()]
        return self.derive_rows(opened, probabilities, limits)

    def halves(self, problem: Problem) -> tuple[Task, Task]:
        """Return the data of the weights and of the logits."""
        return problem.task.halves(stream_seed(problem.seed, self.name, "halves"))

    def check(self, problem: Problem) -> None:
        """Raise where no architecture is within the budget; needs no trained weights."""
        check_space(problem, self.open_problem(problem).costs)

    def open_problem(self, problem: Problem) -> Opened:
        """Return the problem with its settings checked, its space and costs."""
        settings = {**COMMON, **self.own, **problem.options}
        self.check_settings(settings)
        self.loop_settings(problem, settings)
        blocks = open_space(problem, settings)
        return Opened(settings, blocks, costs_of(problem, blocks))

    def loop_settings(self, problem: Problem, settings: Mapping[str, Any]) -> LoopSettings:
        """Return the settings of the loop."""
        batch = int(settings["batch_size"])
        per_epoch = max(1, problem.task.steps_per_epoch(batch) // 2)
        steps = int(settings["search_steps"]) or math.ceil(
            float(settings["search_epochs"]) * per_epoch
        )
        return LoopSettings(
            steps, batch, float(settings["learning_rate"]), warmup=float(settings["warmup"]),
            architecture_rate=float(settings["architecture_rate"]), every=int(settings["every"]),
            temperatures=(float(settings["temperature_start"]),
                          float(settings["temperature_end"])),
            record_steps=max(1, steps // 50),
        )  # fmt: skip

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield one network per budget."""
        opened = replace(self.open_problem(problem), run=run)
        check_space(problem, opened.costs)
        supernet = self.searched(problem, run, opened)
        start = problem.original_cost
        step, cost = 0, start
        levels = self._levels(problem, run, int(opened.settings["levels"]), start)
        while step == 0 or not problem.budget.met(cost):
            step += 1
            key = f"{self.name}/step/{step}"
            done = run.recall(key)
            if done is None:
                limits = next_limits(problem, levels, cost)
                rows = self.rows(problem, opened, supernet, limits)
                done = judge(
                    problem, run, supernet,
                    Member(self.name, step, opened.costs, rows, opened.settings),
                )  # fmt: skip
            cost = Cost(done["predicted"], "predicted")
            problem.progress(
                f"step {step}: {cost_text(cost)}, supernet's validation "
                f"{done[problem.val_metric]:.4f}"
            )
            yield member(problem, self.name, step, opened.costs, done)

    def _levels(
        self, problem: Problem, run: Run, count: int, start: Cost
    ) -> list[dict[str, float]]:
        """Return the budgets of the family, from the original's cost to the one asked for."""
        return family_levels(problem, run, self.name, count, start)

    def searched(self, problem: Problem, run: Run, opened: Opened) -> Supernet:
        """Return the supernet after its search, which runs once per run directory."""
        supernet = self.make_supernet(problem, opened)
        folder = run.checkpoint_folder(self.name)
        final = folder / "supernet.safetensors"
        done = run.recall(f"{self.name}/searched")
        if done is not None and final.exists():
            supernet.restructure(done["structure"])
            supernet.load_state_dict(read_state(final))
            return supernet.eval()
        settings = opened.settings
        bounds = dict(problem.budget.limits)
        expected = {key: opened.costs.expectation(key) for key in bounds}
        state = SearchState(
            supernet, problem.task,
            Pressure(
                str(settings["penalty"]), expected, bounds, float(settings["strength"]) or None
            ),
            self.loop_settings(problem, settings), stream_seed(problem.seed, self.name, "search"),
        )  # fmt: skip
        if run.recall(f"{self.name}/supernet") is None:
            names = {c.name: [o.name for o in c.operations] for c in opened.blocks}
            run.record("supernet", f"{self.name}/supernet", method=self.name, choices=names)
        search_supernet(
            state, self.make_rule(problem, opened), self.halves(problem),
            checkpoint=folder / "search.safetensors",
            on_record=recorder(self.name, problem, run, opened.blocks),
        )  # fmt: skip
        write_state(final, supernet.state_dict())
        run.record("searched", f"{self.name}/searched", structure=supernet.structure())
        return supernet
