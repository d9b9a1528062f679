# SPDX-License-Identifier: Apache-2.0
"""RARTS's width search: gates on channels learn with the weights, the smallest are removed.

Xue, Qi and Xin, IEEE Access 2022, arXiv 2008.03901. Our variant: gates under an l1 penalty that
weighs a channel by its price on the device; then, of the widths that the device likes and the
budget allows, those that keep the largest gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.files import read_state, write_state
from chipfit.graph.channels import channel_groups
from chipfit.methods.base import Problem
from chipfit.methods.reach import cost_text
from chipfit.methods.width_costs import WidthCosts
from chipfit.rewrite.edits import Edit
from chipfit.rewrite.slice import slice_channels
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.supernet.channel_gates import ChannelGates
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.width_rule import WidthRule
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.randomness import stream_seed

#: Training images that batch norms are recalibrated with.
BATCHES, BATCH = 8, 64
NAME = "rarts"
Kept = dict[str, tuple[int, ...]]


class WidthSearch:
    """A width search under way.

    Args:
        problem: To solve.
        settings: Of the method.
        loop: Of the training of the gates.

    Raises:
        BadInput: An option is out of range, or no layer can be made narrower.
        InfeasibleBudget: The narrowest network is over the budget.
    """

    def __init__(self, problem: Problem, settings: Mapping[str, Any], loop: LoopSettings) -> None:
        if int(settings["widths"]) < 2 or float(settings["shrinkage"]) < 0:
            raise BadInput(
                f"rarts: widths={settings['widths']}, shrinkage={settings['shrinkage']}",
                "2 or more widths, and a shrinkage that is not negative",
            )
        self.problem, self.settings, self.loop = problem, settings, loop
        groups = channel_groups(problem.net, problem.example, problem.keep)
        self.costs = WidthCosts(problem, groups, int(settings["widths"]))
        self.costs.check()

    def members(self, run: Run, levels: Sequence[Mapping[str, float]]) -> Iterator[Candidate]:
        """Yield one network per budget, with weights to be fine-tuned."""
        gates = self._trained(run)
        cost, step = self.problem.original_cost, 0
        while step == 0 or not self.problem.budget.met(cost):
            step += 1
            done = run.recall(f"{NAME}/step/{step}")
            if done is None:
                left = [one for one in levels if any(cost[k] > v for k, v in one.items())]
                limits = dict(left[0] if left else self.problem.budget.limits)
                done = self._judge(run, gates, step, limits)
            cost = Cost(done["predicted"], "predicted")
            self.problem.progress(
                f"step {step}: {cost_text(cost)}, validation {done[self.problem.val_metric]:.4f}"
            )
            yield self._candidate(step, done)

    def _trained(self, run: Run) -> ChannelGates:
        """Return the gates after their training, which runs once per run directory."""
        problem, settings = self.problem, self.settings
        gates = ChannelGates(problem.net, self.costs.groups)
        folder = run.checkpoint_folder(NAME)
        final = folder / "gates.safetensors"
        if run.recall(f"{NAME}/gates") is not None and final.exists():
            gates.load_state_dict(read_state(final))
            return gates.eval()
        prices = self.costs.channel_prices()
        rule = WidthRule(
            gates, prices, float(settings["shrinkage"]), float(settings["train_weight"]),
            float(settings["coupling"]), bool(settings["fresh"]),
        )  # fmt: skip
        state = SearchState(
            gates, problem.task, Pressure("none", {}, {}), self.loop,  # type: ignore[arg-type]
            stream_seed(problem.seed, NAME, "search"),
        )  # fmt: skip

        def record(state: SearchState, seconds: float) -> None:
            values = np.concatenate([g.detach().abs().numpy() for g in gates.gates])
            found = run.record(
                "search", f"{NAME}/search/{state.step}", method=NAME, step=state.step,
                steps=state.settings.steps, seconds=round(seconds, 3),
                mean_gate=float(values.mean()), closed_share=float((values == 0).mean()),
                **state.losses,
            )  # fmt: skip
            problem.progress(
                f"step {state.step}/{state.settings.steps}: loss {found['loss']:.3f}, mean gate "
                f"{found['mean_gate']:.2f}, closed {100 * found['closed_share']:.0f} %"
            )

        search_supernet(
            state, rule, problem.task.halves(stream_seed(problem.seed, NAME, "halves")),
            checkpoint=folder / "search.safetensors", on_record=record,
        )  # fmt: skip
        write_state(final, gates.state_dict())
        run.record("gates", f"{NAME}/gates", prices=dict(zip(self._names, prices, strict=True)))
        return gates

    @property
    def _names(self) -> list[str]:
        return [choice.name for choice in self.costs.space]

    def _judge(
        self, run: Run, gates: ChannelGates, step: int, limits: Mapping[str, float]
    ) -> dict[str, Any]:
        """Slice the widths of largest gates, keep the most accurate, and record it."""
        problem, settings = self.problem, self.settings
        sizes = [np.sort(g.detach().abs().numpy())[::-1] for g in gates.gates]
        scores = [
            np.array([float(own[:width].sum()) for width in choice.options])
            for choice, own in zip(self.costs.space, sizes, strict=True)
        ]
        rows = self.costs.widest(scores, limits, int(settings["proposals"]))
        merged, batches = gates.merged(), problem.task.calibration_batches(BATCHES, BATCH)
        found: list[tuple[float, nn.Module, tuple[int, ...]]] = []
        for row in rows:
            net = slice_channels(merged, self._edits(self._kept(gates, row)))
            recalibrate_batchnorm(net, batches)
            metrics = problem.task.evaluate(net, "val", limit=int(settings["val_images"]))
            found.append((metrics[problem.task.metric], net, row))
        sign = 1 if problem.task.higher_is_better else -1
        best = max(range(len(found)), key=lambda i: (sign * found[i][0], -i))
        value, net, row = found[best]
        path = run.candidate_folder(f"{NAME}-{step:02}") / "short.safetensors"
        write_state(path, net.state_dict())
        return run.record(
            "step", f"{NAME}/step/{step}", step=step, row=list(row),
            kept=self._kept(gates, row), group=f"{len(found)} architectures judged",
            width=best + 1, predicted=dict(self.costs.networks([row])[0].values),
            **{problem.val_metric: value},
        )  # fmt: skip

    def _kept(self, gates: ChannelGates, row: Sequence[int]) -> Kept:
        """Return the channels of largest gates by group; equal ones keep the lower index."""
        kept = {}
        for choice, gate, option in zip(self.costs.space, gates.gates, row, strict=True):
            sizes = gate.detach().abs().tolist()
            order = sorted(range(len(sizes)), key=lambda c: (-sizes[c], c))
            kept[choice.name] = tuple(sorted(order[: choice.options[option]]))
        return kept

    def _edits(self, kept: Mapping[str, Sequence[int]]) -> tuple[Edit, ...]:
        return self.costs.pricer.edits(kept)

    def _candidate(self, step: int, done: Mapping[str, Any]) -> Candidate:
        """Return the member of a step; its changes say group by group what it saved."""
        name, row = f"{NAME}-{step:02}", tuple(int(i) for i in done["row"])
        metric = self.problem.val_metric
        return Candidate(
            id=name, edits=self._edits(done["kept"]), step=step, parent=ORIGINAL,
            weights=f"candidates/{name}/short.safetensors", predicted=dict(done["predicted"]),
            architecture=self.costs.names(row), metrics={metric: done[metric]},
            changes=self.costs.changes(step, row),
        )  # fmt: skip
