# SPDX-License-Identifier: Apache-2.0
"""Pruning for microcontrollers: keep ratios are learnt under several budgets at once.

Liberis and Lane, "Differentiable Network Pruning for Microcontrollers", IMWUT 2022,
arXiv 2110.08350, prune while training, with peak memory, model size and latency in the loss. How
ratios become masks with a gradient is our variant of Ning et al.'s DSA (ECCV 2020,
arXiv 2004.02164; :mod:`chipfit.supernet.keep_ratio`), and so are the tightening of the bounds, the
augmented Lagrangian and the repair on the recounted cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.files import read_state, write_state
from chipfit.graph.channel_readers import channel_readers
from chipfit.graph.channels import channel_groups
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.mcu_resources import McuResources, Row
from chipfit.methods.mcu_rounding import WidthRepair, kept_shares, nearest_row
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text
from chipfit.methods.width_table import WidthTable, thinned_widths, width_table
from chipfit.rewrite.slice import slice_channels
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.scores.channel_importance import keep_most_important, magnitude_importance
from chipfit.supernet.keep_ratio_network import KeepRatios
from chipfit.supernet.keep_ratio_rule import KeepRatioRule, KeepRatioSchedule
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.randomness import stream_seed

NAME = "mcu"
#: Training images that batch norms are recalibrated with.
BATCHES, BATCH = 8, 64


@METHODS.register(
    NAME,
    summary="keep ratios learnt under budgets of memory, flash and latency at once",
    source="after Liberis and Lane, IMWUT 2022, arXiv 2110.08350",
)
class Mcu:
    """The method, with the options below.

    Weights and ratios are trained in turn on two halves of the training data, for
    ``search_epochs`` passes over one half (or ``search_steps`` where positive); a step of the
    ratios follows every ``every`` of the weights, by Adam at ``ratio_rate``. Bounds fall from the
    original's cost to the budget over the share ``tighten`` of the steps. When all are met, at the
    latest after the share ``freeze``, ratios are rounded to the target's widths (at most
    ``widths`` of each group; 0: all), repaired on the exact cost and frozen, and the weights learn
    on. ``steepness_start`` and ``steepness_end`` are those of the keep probabilities, ``smooth``
    that of the peak of memory, ``strength`` that of the bounds (0: the penalty's own).
    """

    defaults: Mapping[str, Any] = {
        "search_epochs": 4.0, "search_steps": 0, "batch_size": 64, "learning_rate": 0.05,
        "ratio_rate": 0.1, "every": 2, "tighten": 0.5, "freeze": 0.75, "steepness_start": 2.0,
        "steepness_end": 16.0, "smooth": 0.02, "strength": 0.0, "widths": 64, "val_images": 2000,
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where the narrowest network is over budget; needs no trained weights."""
        _Search(problem, {**self.defaults, **problem.options}).resources.check()

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield the network within the budget; where asked again for less, a narrower one."""
        yield from _Search(problem, {**self.defaults, **problem.options}).members(run)


class _Search:
    def __init__(self, problem: Problem, settings: Mapping[str, Any]) -> None:
        self._problem, self._settings = problem, settings
        ranges = {
            "search_epochs": float(settings["search_epochs"]) > 0,
            "search_steps": int(settings["search_steps"]) >= 0,
            "ratio_rate": float(settings["ratio_rate"]) > 0,
            "smooth": float(settings["smooth"]) >= 0,
            "strength": float(settings["strength"]) >= 0,
            "val_images": int(settings["val_images"]) >= 1,
        }
        require_in_range(NAME, settings, ranges)
        self._schedule({}, {})
        self._loop = self._loop_settings()
        every = channel_groups(problem.net, problem.example, problem.keep)
        groups = [g for g in every if g.frozen or channel_readers(problem.net, g)]
        space = thinned_widths(groups, problem.target.alignment, int(settings["widths"]))
        self.table: WidthTable = width_table(problem, groups, space)
        self.resources = McuResources(problem, self.table, float(settings["smooth"]))

    def members(self, run: Run) -> Iterator[Candidate]:
        """Yield a network per budget that was asked for in this run."""
        problem = self._problem
        self.resources.check()
        network = self._trained(run)
        row, step = self._row(network.frozen), 0
        cost: Cost | None = None
        while cost is None or not problem.budget.met(cost):
            step += 1
            done = run.recall(f"{NAME}/step/{step}")
            if done is None:
                done = self._step(run, network, step, row)
            row, cost = tuple(int(i) for i in done["row"]), Cost(done["predicted"], "predicted")
            problem.progress(
                f"step {step}: {cost_text(cost, problem.budget)}, validation "
                f"{done[problem.val_metric]:.4f}"
            )
            yield self._candidate(step, done)

    def _trained(self, run: Run) -> KeepRatios:
        """Return the network after its training, which runs once per run directory."""
        problem, settings = self._problem, self._settings
        least = [choice.options[0] for choice in self.table.space]
        network = KeepRatios(problem.net, self.table.groups, least)
        folder = run.checkpoint_folder(NAME)
        final = folder / "ratios.safetensors"
        done = run.recall(f"{NAME}/ratios")
        if done is not None and final.exists():
            network.restructure(done)
            network.load_state_dict(read_state(final))
            return network.eval()
        limits = dict(problem.budget.limits)
        start = self.resources.exact([self.table.full])[0]
        state = SearchState(
            network,  # type: ignore[arg-type]
            problem.task,
            Pressure(
                "constraint", {key: self.resources.expected(key) for key in limits}, limits,
                float(settings["strength"]) or None,
            ),
            self._loop, stream_seed(problem.seed, NAME, "search"),
        )  # fmt: skip
        rule = KeepRatioRule(
            network, self._schedule({key: start[key] for key in limits}, limits),
            self._importance, self._decide,
        )  # fmt: skip

        def record(state: SearchState, seconds: float) -> None:
            with torch.no_grad():
                costs = state.pressure.expected(network.probabilities())
                widths = [round(float(w), 3) for w in network.widths()]
            run.record(
                "search", f"{NAME}/search/{state.step}", method=NAME, step=state.step,
                steps=state.settings.steps, seconds=round(seconds, 3), expected=costs,
                budget=limits, frozen=bool(network.frozen), **state.losses,
                widths=dict(zip(self._names, widths, strict=True)),
            )  # fmt: skip
            share = ", ".join(f"{key} x {costs[key] / v:.2f}" for key, v in limits.items())
            problem.progress(
                f"step {state.step}/{state.settings.steps}: loss {state.losses['loss']:.3f}, "
                f"of the budget {share}{', frozen' if network.frozen else ''}"
            )

        search_supernet(
            state, rule, problem.task.halves(stream_seed(problem.seed, NAME, "halves")),
            checkpoint=folder / "search.safetensors", on_record=record,
        )  # fmt: skip
        write_state(final, network.state_dict())
        run.record("ratios", f"{NAME}/ratios", **network.structure())
        return network

    @property
    def _names(self) -> list[str]:
        return [choice.name for choice in self.table.space]

    def _importance(self, net: nn.Module) -> list[Tensor]:
        found = magnitude_importance(net, self.table.groups)
        return [found[name] for name in self._names]

    def _decide(self, widths: Tensor, importance: Sequence[Tensor]) -> list[tuple[int, ...]]:
        """Round learnt widths, repair them on the exact cost, and choose the channels."""
        wanted = widths.tolist()
        repair = self._repair(importance)
        row = repair.widened(repair.narrowed(nearest_row(self.table, wanted)), wanted)
        return [
            keep_most_important(values, choice.options[i])
            for choice, values, i in zip(self.table.space, importance, row, strict=True)
        ]

    def _repair(self, importance: Sequence[Tensor]) -> WidthRepair:
        shares = kept_shares(self.table, importance)
        return WidthRepair(self.table, self.resources, self._problem.budget.limits, shares)

    def _row(self, kept: Sequence[Sequence[int]]) -> Row:
        return tuple(
            choice.options.index(len(own))
            for choice, own in zip(self.table.space, kept, strict=True)
        )

    def _step(self, run: Run, network: KeepRatios, step: int, row: Row) -> dict[str, Any]:
        """Slice the network to the budget, judge it and record it."""
        problem, net = self._problem, network.plain(self._problem.net)
        importance = [
            values * network.get_buffer(f"mask{n}")
            for n, values in enumerate(self._importance(net))
        ]
        row = self._repair(importance).narrowed(row)
        kept = {
            choice.name: keep_most_important(values, choice.options[i], own)
            for choice, values, i, own in zip(
                self.table.space, importance, row, network.frozen, strict=True
            )
        }
        sliced = slice_channels(net, self.table.pricer.edits(kept))
        recalibrate_batchnorm(sliced, problem.task.calibration_batches(BATCHES, BATCH))
        metrics = problem.task.evaluate(sliced, "val", limit=int(self._settings["val_images"]))
        path = run.candidate_folder(f"{NAME}-{step:02}") / "short.safetensors"
        write_state(path, sliced.state_dict())
        return run.record(
            "step", f"{NAME}/step/{step}", step=step, row=list(row),
            kept={name: list(own) for name, own in kept.items()},
            predicted=dict(self.resources.exact([row])[0].values),
            **{problem.val_metric: metrics[problem.task.metric]},
        )  # fmt: skip

    def _candidate(self, step: int, done: Mapping[str, Any]) -> Candidate:
        """Return the member of a step; its changes say group by group what it saved."""
        name, row, full = f"{NAME}-{step:02}", tuple(done["row"]), self.table.full
        changed = [g for g, i in enumerate(row) if i != full[g]]
        # Costs of neighbours depend on each other: savings are told in order, and add up.
        path = [
            tuple(row[g] if g in changed[:n] else i for g, i in enumerate(full))
            for n in range(len(changed) + 1)
        ]
        changes = []
        for g, before, after in zip(
            changed, self.resources.exact(path), self.resources.exact(path)[1:], strict=False
        ):
            choice = self.table.space.choices[g]
            saved = {f"{key}_saved": before[key] - after[key] for key in after.values}
            changes.append({"step": step, "group": choice.name, "from": choice.options[-1],
                            "to": choice.options[row[g]], **saved})  # fmt: skip
        metric = self._problem.val_metric
        return Candidate(
            id=name, edits=self.table.pricer.edits(done["kept"]), step=step, parent=ORIGINAL,
            weights=f"candidates/{name}/short.safetensors", predicted=dict(done["predicted"]),
            architecture=self.table.widths(row), metrics={metric: done[metric]}, changes=changes,
        )  # fmt: skip

    def _schedule(self, start: Mapping[str, float], end: Mapping[str, float]) -> KeepRatioSchedule:
        s = self._settings
        steepness = (float(s["steepness_start"]), float(s["steepness_end"]))
        return KeepRatioSchedule(start, end, float(s["tighten"]), float(s["freeze"]), steepness)

    def _loop_settings(self) -> LoopSettings:
        s, batch = self._settings, int(self._settings["batch_size"])
        if batch < 1:
            raise BadInput(f"{NAME}: batch_size={batch} is out of range")
        per_epoch = max(1, self._problem.task.steps_per_epoch(batch) // 2)
        steps = int(s["search_steps"]) or math.ceil(float(s["search_epochs"]) * per_epoch)
        return LoopSettings(
            steps, batch, float(s["learning_rate"]), warmup=0.0, every=int(s["every"]),
            architecture_rate=float(s["ratio_rate"]), record_steps=max(1, steps // 50),
        )  # fmt: skip
