# SPDX-License-Identifier: Apache-2.0
"""``FinishedRun``: a run directory as the benchmarks need it, with its network rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.within import costs_of_networks, within_budget
from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, RunMismatch
from chipfit.flow.network import load_network
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.tasks import Task, load_task
from chipfit.train.recipe import Recipe


@dataclass(frozen=True)
class FinishedRun:
    """What ``chipfit fit`` left behind.

    Args:
        run: Journal, settings and candidates.
        net: The original, trained, in evaluation mode.
        example: Its input, ``(1, C, H, W)``.
        task: Data, loss and metric.
        target: The device.
        recipe: How the original was trained.
        budget: In absolute figures.
    """

    run: Run
    net: nn.Module
    example: torch.Tensor
    task: Task
    target: Target
    recipe: Recipe
    budget: Budget

    @classmethod
    def open(cls, folder: Path, target: str = "") -> FinishedRun:
        """Rebuild everything from the run directory.

        Args:
            folder: What ``--run`` named.
            target: The target with its options, where the run had any.

        Raises:
            BadInput: It is not a run directory, or its run is not finished.
            RunMismatch: The target is not the one that the run priced networks with.
        """
        run = Run.read(folder)
        resolved = run.recall("budget/resolved")
        if resolved is None or not any(event["event"] == "finished" for event in run.journal):
            raise BadInput(f"the run in {folder} is not finished", "give the same command again")
        config = run.config
        device = create(target or config["target"])
        if device.fingerprint != config["fingerprint"]:
            raise RunMismatch(
                f"{folder} was priced with {config['fingerprint']}, here is {device.fingerprint}",
                "name its options, --target NAME:option=value, or run on the same machine",
            )
        loaded = load_network(
            config["network"], input_shape=tuple(config["input_shape"]),
            num_classes=config["num_classes"] or None, seed=config["seed"],
        )  # fmt: skip
        net = run.candidate(ORIGINAL).build(loaded.net, run.folder).eval()
        return cls(
            run, net, loaded.example(), load_task(config["task"]), device,
            Recipe(**config["recipe"]), Budget(resolved["limits"]),
        )  # fmt: skip

    @property
    def original(self) -> Candidate:
        """The network that came in."""
        return self.run.candidate(ORIGINAL)

    def member_at_budget(self) -> Candidate:
        """Return the dearest member of the family within the budget; no accuracy is looked at.

        Raises:
            BadInput: There is none.
        """
        key = self.budget.keys[0]
        family = [c for c in self.run.candidates() if c.id != ORIGINAL]
        within = [c for c in family if self.budget.met(Cost(dict(c.cost), c.provenance))]
        if not within:
            raise BadInput(f"no member of {self.run.folder} is within {self.budget}")
        return max(within, key=lambda c: c.cost[key])

    def costs(self, nets: Sequence[nn.Module]) -> list[dict[str, float]]:
        """Return what networks cost with their own weights, compared in one session."""
        return costs_of_networks(self.target, self.example, nets)

    def within_budget(self, nets: Sequence[nn.Module]) -> list[bool]:
        """Tell of each network whether it is within the budget."""
        cost = self.original.cost
        return within_budget(self.target, self.example, self.net, cost, self.budget, nets)

    def images(self, member: Candidate) -> dict[str, int]:
        """Return the training images that NetAdapt spent on the way to ``member``.

        ``lineage`` counts the short fine-tunes that ``member`` descends from, ``proposals`` those
        of every proposal up to its step, ``recovery`` its long-term fine-tune.
        """
        lineage = 0
        for step in range(1, member.step + 1):
            chosen = self.run.recall(f"netadapt/step/{step}") or {}
            proposal = self.run.recall(f"netadapt/step/{step}/{chosen['group']}") or {}
            lineage += proposal["images"]
        # A proposal that was tuned again after a restart counts once: by its key.
        proposals = {
            event["key"]: event.get("images", 0)
            for event in self.run.journal
            if event["event"] == "proposal" and event["step"] <= member.step
        }
        recovery = (self.run.recall(f"recover/{member.id}") or {})["images"]
        return {"lineage": lineage, "proposals": sum(proposals.values()), "recovery": recovery}
