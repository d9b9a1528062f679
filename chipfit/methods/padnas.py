# SPDX-License-Identifier: Apache-2.0
"""PAD-NAS: a supernet whose space is pruned layer by layer while it is trained.

Xia, Xiao, Wang and Zheng, "PAD-NAS: Progressive Automatic Design of Search Space for One-Shot
Neural Architecture Search", WACV 2022; our reading of the chapter on it in "Low-Power Computer
Vision" (CRC Press, 2022). The fewer operations share a place, the better one-shot accuracies rank
architectures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from chipfit.blackbox import Evaluation
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.one_shot_evolution import OneShotEvolution, Window, front_number
from chipfit.methods.ranges import require_in_range
from chipfit.methods.supernet_search import Opened, SupernetSearch
from chipfit.runs.run import Run
from chipfit.supernet.phased_pruning import (
    PhasedPruning,
    Pruning,
    operation_shares,
    surviving,
)
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.supernet import Supernet
from chipfit.tasks.base import Task
from chipfit.train.randomness import stream_seed


@METHODS.register(
    "padnas",
    summary="single-path supernet; NSGA-II in the cost window prunes operations choice by choice",
    source="Xia et al., PAD-NAS, WACV 2022",
)
class PadNAS(SupernetSearch):
    """The method, with the options of :class:`~chipfit.methods.supernet_search.SupernetSearch`.

    One path, drawn evenly, is trained in every step, on all training data (``search_epochs`` are
    passes over it). ``phases`` are the relative lengths of training between prunings: with the
    paper's 120, 80 and 40 epochs, operations are pruned twice. The learning rate falls along one
    cosine, where the paper has one decay per phase.

    At the end of each phase but the last, NSGA-II (``population``, ``generations``; the paper has
    64 and 40) looks among architectures that cost between ``window`` times the budget and the
    loosest of ``levels`` budgets. Accuracies are those on ``evolution_images`` held-out images.
    Architectures of a non-domination rank below ``rank`` (the Pareto front has 1) are counted, and
    of each choice the operations that at most a share of ``threshold`` of them take are pruned, if
    the window holds a ``population`` of architectures at all.
    That all evaluated architectures are ranked, not the last generation alone, is our reading.
    Operations of the most accurate one always stay, so that the budget stays within reach.

    After the last phase a last such search gives, at each of ``levels`` budgets, the ``proposals``
    most accurate architectures that are judged. Probabilities in reports are the shares by which
    operations were pruned last.
    """

    name: ClassVar[str] = "padnas"
    own: ClassVar[Mapping[str, Any]] = {
        "phases": (3.0, 2.0, 1.0), "window": 0.8, "population": 32, "generations": 8,
        "evolution_images": 500, "rank": 10, "threshold": 0.01, "penalty": "none",
    }  # fmt: skip
    unused: ClassVar[frozenset[str]] = frozenset(
        {"architecture_rate", "warmup", "every", "temperature_start", "temperature_end", "penalty",
         "strength"}
    )  # fmt: skip

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ``BadInput`` where an option is out of range."""
        super().check_settings(settings)
        phases = [float(phase) for phase in settings["phases"]]
        ranges = {
            "phases": bool(phases) and min(phases) > 0,
            "window": 0 <= float(settings["window"]) <= 1,
            "population": int(settings["population"]) >= 2,
            "generations": int(settings["generations"]) >= 1,
            "evolution_images": int(settings["evolution_images"]) >= 1,
            "rank": int(settings["rank"]) >= 2,
            "threshold": 0 <= float(settings["threshold"]) < 1,
        }
        require_in_range(self.name, settings, ranges)

    def halves(self, problem: Problem) -> tuple[Task, Task]:
        """Return all training data; there is no step of the logits."""
        return problem.task, problem.task

    def loop_settings(self, problem: Problem, settings: Mapping[str, Any]) -> LoopSettings:
        """Return the settings of the loop, without a step of the logits."""
        base = super().loop_settings(problem, settings)
        steps = int(settings["search_steps"]) or math.ceil(
            float(settings["search_epochs"]) * problem.task.steps_per_epoch(base.batch_size)
        )
        # The only step that "every" names is the first, in which logits rest.
        return replace(base, steps=steps, every=steps, warmup=0.5, record_steps=max(1, steps // 50))

    def make_rule(self, problem: Problem, opened: Opened) -> SearchRule:
        """Return single paths with prunings between."""

        def decide(state: SearchState, phase: int) -> Pruning | None:
            return self.pruning(problem, opened, state, phase)

        return PhasedPruning([float(phase) for phase in opened.settings["phases"]], decide)

    def pruning(
        self, problem: Problem, opened: Opened, state: SearchState, phase: int
    ) -> Pruning | None:
        """Return what is pruned after a phase; ``None`` where the window holds too little."""
        settings, space = opened.settings, state.supernet.space
        found = self.evolved(problem, opened, state.supernet, str(phase))
        if len(found) < int(settings["population"]):
            problem.progress(f"phase {phase}: too few architectures in the window to prune by")
            return None
        higher = problem.task.higher_is_better
        numbers = front_number(found, higher)
        counted = [
            e for e, n in zip(found, numbers, strict=True) if n < int(settings["rank"])
        ]  # fmt: skip
        shares = operation_shares([e.row for e in counted], [len(c.operations) for c in space])
        best = max(counted, key=lambda e: e.values[0] if higher else -e.values[0])
        kept = surviving(shares, float(settings["threshold"]), best.row)
        left = sum(len(own) for own in kept)
        problem.progress(f"phase {phase}: {left} of {sum(map(len, shares))} operations are left")
        key, run = f"{self.name}/pruned/{phase}", _run(opened)
        if run.recall(key) is None:
            run.record(
                "pruned", key, method=self.name, phase=phase, step=state.step + 1,
                evaluated=len(found), counted=len(counted),
                shares={c.name: s.round(6).tolist() for c, s in zip(space, shares, strict=True)},
                kept={c.name: [c.operations[i].name for i in own]
                      for c, own in zip(space, kept, strict=True)},
            )  # fmt: skip
        return Pruning(kept, shares)

    def rows(
        self, problem: Problem, opened: Opened, supernet: Supernet, limits: Mapping[str, float]
    ) -> list[tuple[int, ...]]:
        """Return the most accurate architectures that the last evolution met within the limits.

        Those that cost at least ``floor`` times the first limit are preferred, then cheaper ones,
        then the most frequent ones, which it need not have met.
        """
        key, limit = next(iter(limits.items()))
        sign = 1.0 if problem.task.higher_is_better else -1.0
        found = self.evolved(problem, opened, supernet, "last", limits)
        rows = np.array([e.row for e in found], np.int64).reshape(len(found), len(opened.blocks))
        inside = np.ones(len(found), bool)
        for other, bound in limits.items():
            inside &= opened.costs.of(other)(rows) <= bound
        near = inside & (opened.costs.of(key)(rows) >= float(opened.settings["floor"]) * limit)
        picked = [e for e, good in zip(found, near if near.any() else inside, strict=True) if good]
        picked.sort(key=lambda e: (-sign * e.values[0], e.values[1], e.row))
        best = [e.row for e in picked[: int(opened.settings["proposals"])]]
        return best or super().rows(problem, opened, supernet, limits)

    def evolved(
        self, problem: Problem, opened: Opened, supernet: Supernet, name: str,
        limits: Mapping[str, float] | None = None,
    ) -> list[Evaluation]:  # fmt: skip
        """Return what NSGA-II evaluates in the window of the family, or in that of other limits."""
        settings, run = opened.settings, _run(opened)
        levels = self._levels(problem, run, int(settings["levels"]), problem.original_cost)
        high, last = levels[0], levels[-1]
        if limits is not None and dict(limits) not in levels:  # the budget was tightened since
            high = last = dict(limits)
        low = float(settings["window"]) * next(iter(last.values()))
        evolution = OneShotEvolution(
            problem, opened.costs, int(settings["population"]), int(settings["generations"]),
            int(settings["evolution_images"]),
        )  # fmt: skip
        return evolution.run(
            supernet, Window(high, low), stream_seed(problem.seed, self.name, "evolution", name),
            run.checkpoint_folder(self.name) / f"evolution-{name}.json",
        )  # fmt: skip


def _run(opened: Opened) -> Run:
    assert opened.run is not None  # a search has one
    return opened.run
