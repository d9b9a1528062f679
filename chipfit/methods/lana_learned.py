# SPDX-License-Identifier: Apache-2.0
"""The replacements of LANA after their training, and how much each raises the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chipfit.methods.base import Problem
from chipfit.methods.lana_jobs import DistilJob, ScoreJob, dealt, distil, score
from chipfit.methods.lana_plan import Plan
from chipfit.runs.run import Run
from chipfit.supernet.blockwise import BlockwiseSettings
from chipfit.supernet.blockwise_store import ReplacementStore
from chipfit.train.randomness import stream_seed


class Learned:
    """The replacements after their training, which runs once per run directory.

    Args:
        problem: The problem.
        run: Remembers what is done.
        settings: Of the method.
        plan: What may be chosen.
    """

    def __init__(self, problem: Problem, run: Run, settings: Mapping[str, Any], plan: Plan) -> None:
        self._problem, self._run, self._settings = problem, run, settings
        self.folder = run.checkpoint_folder("lana")
        self.store = ReplacementStore(self.folder / "replacements", plan.blocks)
        done = run.recall("lana/pool")
        if done is None:
            done = run.record("pool", "lana/pool", method="lana", choices=plan.pool())
            count = sum(map(len, plan.pool().values()))
            problem.progress(f"{count} replacements for {len(plan.blocks)} blocks")
        self.pool: dict[str, list[str]] = done["choices"]
        self._parts = dealt(self.pool, int(settings["together"]))
        #: Seed of the halves of the training data: replacements learn from the first.
        self.halves = stream_seed(problem.seed, "lana", "halves")

    def increases(self) -> dict[str, dict[str, float]]:
        """Return by choice and operation how much the loss rises, in the unit of the loss."""
        self._distil()
        names = {"": ["keep"], **{choice: own for choice, own in self.pool.items() if own}}
        missing = [c for c in names if self._run.recall(f"lana/score/{c}") is None]
        jobs = [
            ScoreJob(self.store, c, tuple(names[c]), int(self._settings["score_images"]),
                     self.halves)
            for c in missing
        ]  # fmt: skip
        for number, (at, losses) in enumerate(self._problem.pool.map(score, jobs), 1):
            choice = missing[at]
            own = dict(zip(names[choice], losses, strict=True))
            self._run.record("score", f"lana/score/{choice}", choice=choice, losses=own)
            if choice:
                self._problem.progress(f"scored {choice} ({number} of {len(jobs)})")
        found = {c: (self._run.recall(f"lana/score/{c}") or {})["losses"] for c in names}
        start = float(found.pop("")["keep"])
        return {
            choice: {o: float(loss) - start for o, loss in found.get(choice, {}).items()}
            for choice in self.pool
        }

    def errors(self) -> dict[str, dict[str, float]]:
        """Return by choice and operation the relative error of its output after training."""
        self._distil()
        found: dict[str, dict[str, float]] = {choice: {} for choice in self.pool}
        for i in range(len(self._parts)):
            done = (self._run.recall(f"lana/distil/{i}") or {})["errors"]
            for choice, own in done.items():
                found[choice] |= {name: float(error) for name, error in own.items()}
        return found

    def _distil(self) -> None:
        problem, settings = self._problem, self._settings
        batch = int(settings["batch_size"])
        per_epoch = problem.task.halves(self.halves)[0].steps_per_epoch(batch)
        steps = int(settings["distil_steps"]) or math.ceil(
            float(settings["distil_epochs"]) * per_epoch
        )
        trained = BlockwiseSettings(steps, batch, float(settings["learning_rate"]))
        parts = self._parts
        missing = [i for i in range(len(parts)) if self._run.recall(f"lana/distil/{i}") is None]
        jobs = [
            DistilJob(
                self.store, parts[i], trained, stream_seed(problem.seed, "lana", "replacements"),
                self.halves, self.folder / f"distil-{i}.safetensors",
                f"distilling {len(parts[i])} replacements ({i + 1} of {len(parts)})",
            )
            for i in missing
        ]  # fmt: skip
        for number, (at, errors) in enumerate(problem.pool.map(distil, jobs), 1):
            self._run.record("distil", f"lana/distil/{missing[at]}", errors=errors)
            jobs[at].checkpoint.unlink(missing_ok=True)
            problem.progress(f"distilled part {number} of {len(jobs)}")
