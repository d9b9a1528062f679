# SPDX-License-Identifier: Apache-2.0
"""RAN-e: choose where non-linearity stays, and collapse every other block to one convolution.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562. The paper calls its
search semi-automatic and tells no details; this is an automatic one, our reconstruction:

1. every block that would be linear without its inner activations gets a gate between itself and its
   collapsed form (pre-activation: batch norm, activation, one dense convolution, batch norm);
2. weights and gates are trained together, with the original as teacher, under the budget as a
   constraint on the expected cost, which comes from the cost table;
3. at several budgets between the original's cost and the one asked for, the pattern of largest
   total log-odds is derived exactly, beside patterns that also crop kernels, drop hidden channels
   or change activations, by how little each moves the network's outputs;
4. proposals are recovered shortly, and the most accurate on validation data is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from chipfit.cost.cost import Cost
from chipfit.files import write_state
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.levels import family_levels, next_limits
from chipfit.methods.ran_e_inherit import edits_of
from chipfit.methods.ran_e_jobs import (
    BATCH,
    BATCHES,
    GatedTask,
    Learned,
    WorthJob,
    gate_recipe,
    worth,
)
from chipfit.methods.ran_e_options import describe
from chipfit.methods.ran_e_plan import Plan, check_settings, make_plan
from chipfit.methods.ran_e_step import take_step
from chipfit.methods.reach import cost_text
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.supernet.gated_network import GatedNetwork
from chipfit.train.jobs import training_lines
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed


@METHODS.register(
    "ran-e",
    summary="linearise blocks and collapse them to one convolution, by what the device charges",
    source="Bhardwaj et al., 2022, arXiv 2208.08562",
)
class RanE:
    """The method, with the options below.

    ``search_epochs`` of gate training (or ``search_steps`` iterations where positive) at most at
    ``learning_rate``; in the first ``warmup`` of them gates are drawn evenly. Gates are sampled at
    temperatures from ``temperature_start`` to ``temperature_end``, as 0 or 1 where ``hard``.
    ``expanded`` trains the factors of linear blocks apart while one convolution is executed (SESR).

    ``steps`` budgets lie between the original's cost and the one asked for; at each, the
    ``proposals`` patterns of largest log-odds, and those by worth, are tuned for ``short_steps``
    iterations and judged on ``val_images`` held-out images (0: all).

    ``refine`` also offers smaller collapsed kernels (``crop_kernels``), fewer hidden channels
    (``expansions``, shares of a block's own) and other ``activations`` (``own`` is the block's);
    without it every block is either kept as it is or collapsed with its own kernel and activation.
    """

    defaults: Mapping[str, Any] = {
        "search_epochs": 1.0, "search_steps": 0, "learning_rate": 0.002, "warmup": 0.3,
        "temperature_start": 2.0, "temperature_end": 0.5, "hard": True, "expanded": True,
        "steps": 4, "proposals": 2, "short_steps": 60, "val_images": 2000,
        "refine": True, "crop_kernels": True, "expansions": (0.25, 0.5, 0.75),
        "activations": ("own", "relu6"),
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where no pattern is within the budget; needs no trained weights."""
        self._open(problem)

    def _open(self, problem: Problem) -> tuple[dict[str, Any], Plan]:
        settings = {**self.defaults, **problem.options}
        check_settings(settings)
        return settings, make_plan(problem, settings)

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield one network per budget, with its weights after the short recovery."""
        settings, plan = self._open(problem)
        start = plan.costs.networks([[0] * len(plan.blocks)])[0]
        if problem.budget.met(start):
            return
        learned, log_odds = _gates(problem, run, settings, plan)
        scores = _worth(problem, run, plan, learned)
        levels = family_levels(problem, run, "ran-e", int(settings["steps"]), start)
        step, cost = 0, start
        while not problem.budget.met(cost):
            step += 1
            key = f"ran-e/step/{step}"
            done = run.recall(key)
            if done is None:
                limits = next_limits(problem, levels, cost)
                done = take_step(
                    problem, run, settings, step, plan, learned, limits, log_odds, scores
                )
            cost = Cost(done["predicted"], "predicted")
            candidate = _candidate(problem, plan, step, done)
            problem.progress(
                f"step {step}: {done['width']} ({done['group']}), {cost_text(cost)}, "
                f"validation {done[problem.val_metric]:.4f}"
            )
            yield candidate


def _gates(
    problem: Problem, run: Run, settings: Mapping[str, Any], plan: Plan
) -> tuple[Learned, dict[str, float]]:
    """Train gates and weights, once per run; return where they are, and the log-odds to keep."""
    folder = run.checkpoint_folder("ran-e")
    names = tuple(plan.gates)
    learned = Learned(
        plan.blocks, names, plan.linear, bool(settings["expanded"]), folder / "gates.safetensors"
    )
    done = run.recall("ran-e/gates")
    if done is not None and learned.state.exists():
        return learned, done["log_odds"]
    recipe = gate_recipe(
        problem.task.recipe, float(settings["search_epochs"]), int(settings["search_steps"]),
        float(settings["learning_rate"]),
    )  # fmt: skip
    keys = problem.budget.keys if names else ()
    start = {key: float(plan.gated_cost(key, np.zeros((1, len(names)), int))[0]) for key in keys}
    every = np.ones((1, len(names)), int)
    lowest = {key: float(plan.gated_cost(key, every)[0]) for key in keys}
    gated = learned.empty(
        problem.net,
        costs=[partial(plan.gated_cost, key) for key in keys],
        # What gates alone cannot reach is left to the other options.
        limits=[max(problem.budget.limits[key], 1.02 * lowest[key]) for key in keys],
        scales=[start[key] for key in keys],
        steps=recipe.total_steps(problem.task.steps_per_epoch(recipe.batch_size)),
        warmup=float(settings["warmup"]),
        temperatures=(float(settings["temperature_start"]), float(settings["temperature_end"])),
        hard=bool(settings["hard"]),
        batches=problem.task.calibration_batches(BATCHES, BATCH),
    )
    if names:
        problem.progress(f"training the gates of {len(names)} blocks: {', '.join(names)}")
        fit_model(
            gated, GatedTask(problem.task, gated), recipe,
            seed=stream_seed(problem.seed, "ran-e", "gates"),
            checkpoint=folder / "training.safetensors", teacher=problem.net,
            on_progress=training_lines("gates", problem.progress, 2.0),
        )  # fmt: skip
    write_state(learned.state, _without_constraints(gated))
    odds = dict(zip(names, (float(v) for v in gated.log_odds.detach()), strict=True))
    expected = gated.expected_costs().tolist()
    run.record(
        "gates", "ran-e/gates", log_odds=odds,
        expected={k: e * start[k] for k, e in zip(keys, expected, strict=True)},
    )  # fmt: skip
    for name, value in odds.items():
        problem.progress(f"{name}: log-odds of its activations {value:+.2f}")
    return learned, odds


def _without_constraints(gated: GatedNetwork) -> dict[str, Any]:
    return {n: v for n, v in gated.state_dict().items() if not n.startswith("constraint.")}


def _worth(problem: Problem, run: Run, plan: Plan, learned: Learned) -> list[np.ndarray]:
    """Return, by block, how much closer to the original each option is than the worst can be.

    Scores are negative distances (:func:`~chipfit.methods.ran_e_jobs.worth`), higher is better.
    """
    done = run.recall("ran-e/worth")
    if done is None:
        keep = [0] * len(plan.blocks)
        jobs, places = [], []
        for b, block in enumerate(plan.blocks):
            rows = [[*keep[:b], i, *keep[b + 1 :]]
                    for i in range(1, len(plan.costs.options[block.module]))]  # fmt: skip
            jobs.append(WorthJob(learned, [plan.options(row) for row in [keep, *rows]]))
            places.append(block.module)
        found: dict[str, list[float]] = {}
        for number, (at, losses) in enumerate(problem.pool.map(worth, jobs), 1):
            found[places[at]] = [loss - losses[0] for loss in losses]
            problem.progress(f"judged the options of {places[at]} ({number} of {len(jobs)})")
        done = run.record("worth", "ran-e/worth", distances=found)
    return [-np.array(done["distances"][block.module]) for block in plan.blocks]


def _candidate(problem: Problem, plan: Plan, step: int, done: Mapping[str, Any]) -> Candidate:
    """Return the member of a step; its changes say block by block what was done and bought."""
    name, row = f"ran-e-{step:02}", tuple(done["row"])
    chosen = plan.options(row)
    changed = [b for b, i in enumerate(row) if i]
    # Costs of neighbours depend on each other: savings are told in order, and add up.
    path = [[i if b in changed[:n] else 0 for b, i in enumerate(row)]
            for n in range(len(changed) + 1)]  # fmt: skip
    costs = plan.costs.networks(path)
    changes = []
    for n, b in enumerate(changed):
        block = plan.blocks[b]
        saved = {
            f"{key}_saved": costs[n][key] - value
            for key, value in costs[n + 1].values.items()
            if key in costs[n]
        }
        changes.append(
            {"step": step, "group": block.module, "from": describe(block),
             "to": chosen[block.module].name, **saved}
        )  # fmt: skip
    return Candidate(
        id=name, edits=edits_of(chosen), weights=f"candidates/{name}/short.safetensors", step=step,
        architecture={block: option.name for block, option in chosen.items()}, parent=ORIGINAL,
        predicted=dict(done["predicted"]), changes=changes,
        metrics={problem.val_metric: done[problem.val_metric]},
    )  # fmt: skip
