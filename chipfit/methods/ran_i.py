# SPDX-License-Identifier: Apache-2.0
"""RAN-i: other widths and depths at equal NN-Mass, chosen without training.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562: a network that is
narrower and deeper at equal NN-Mass passes gradients alike and costs less. Here the budget is given
and the heaviest network within it is wanted; the exact search over stages, and the non-linear units
that have to stay, are ours. Every member is trained from freshly drawn weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.files import write_state
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.reach import cost_text
from chipfit.methods.scaling import Goal, Scaler
from chipfit.methods.scaling_changes import stage_changes
from chipfit.methods.scaling_prices import NN_MASS, NON_LINEAR_UNITS, ScalingPricer
from chipfit.methods.scaling_search import Answer
from chipfit.rewrite.scale import Scale
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.space.scaling import ScalingBounds

RULES = ("search", "uniform")
#: How often a goal is tightened where the chain promised too much.
_TIGHTENINGS = 4


@METHODS.register(
    "ran-i",
    summary="other widths and depths at the largest NN-Mass, without training",
    source="Bhardwaj et al., 2022, arXiv 2208.08562",
)
class RanI:
    """The method, with the options below.

    ``rule`` is ``search`` (exact, over every stage) or ``uniform`` (the paper's: one factor of all
    widths, one of all depths); ``budgets`` is the number of members, evenly between the original's
    cost and the budget; ``non_linear_units`` is the share of the original's non-linear units that
    stays at least, in units of the cost share; ``width_floor``, ``width_cap``, ``depth_floor`` and
    ``depth_cap`` are relative to the original's stages (:class:`ScalingBounds`); ``step`` is what
    widths are multiples of (0: what the target likes); ``val_images`` limits the images that the
    untrained network is judged on.
    """

    defaults: Mapping[str, Any] = {
        "rule": "search", "budgets": 3, "non_linear_units": 1.0, "width_floor": 0.5,
        "width_cap": 1.5, "depth_floor": 0.5, "depth_cap": 2.5, "step": 0, "val_images": 500,
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where no network within the bounds meets the budget."""
        options, scaler = self._open(problem)
        _best(scaler, options, self._goals(problem, options, scaler)[-1])

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield the heaviest network within each of several budgets, the asked one last."""
        options, scaler = self._open(problem)
        goals = self._goals(problem, options, scaler)
        if run.recall(_key(goals[-1])) is None:
            _best(scaler, options, goals[-1])  # before any other: it may be out of reach
        for number, goal in enumerate(goals, 1):
            key = _key(goal)
            done = run.recall(key)
            if done is None:
                answer = _best(scaler, options, goal)
                done = run.record(
                    "scaled", key, widths=list(answer.widths), depths=list(answer.depths),
                    figures=dict(answer.figures), limits=dict(goal.at_most),
                )  # fmt: skip
            answer = Answer(tuple(done["widths"]), tuple(done["depths"]), done["figures"])
            candidate = self._candidate(problem, run, scaler, answer, number, key, options)
            problem.progress(
                f"{candidate.id}: widths {_joined(answer.widths)}, depths "
                f"{_joined(answer.depths)}, {cost_text(Cost(candidate.predicted, 'predicted'))}, "
                f"NN-Mass {answer.figures[NN_MASS]:.6g}"
            )
            yield candidate

    def _open(self, problem: Problem) -> tuple[dict[str, Any], Scaler]:
        options = {**self.defaults, **problem.options}
        if options["rule"] not in RULES:
            raise BadInput(f"rule {options['rule']!r}", " or ".join(RULES))
        if problem.keep:
            raise BadInput(
                "ran-i scales whole stages and cannot keep single modules as they are",
                "leave --keep out, or choose netadapt",
            )
        if int(options["budgets"]) < 1:
            raise BadInput(f"budgets={options['budgets']} must be positive")
        bounds = ScalingBounds(
            **{k: float(options[k]) for k in ("width_floor", "width_cap", "depth_floor",
                                              "depth_cap")},
            step=int(options["step"]) or problem.target.alignment,
        )  # fmt: skip
        pricer = ScalingPricer(
            problem.net, problem.example, problem.target, problem.table, problem.calibration,
            problem.pool, problem.progress,
        )  # fmt: skip
        return options, Scaler(pricer, bounds)

    def _goals(self, problem: Problem, options: Mapping[str, Any], scaler: Scaler) -> list[Goal]:
        """Return what every member has to be, the asked budget last."""
        pricer = scaler.pricer
        own = pricer.figures([(pricer.widths, pricer.depths)])[0]
        missing = [key for key in problem.budget.keys if key not in own]
        if missing:
            raise BadInput(
                f"this method cannot steer by {', '.join(missing)} on {problem.target.name}",
                f"bound one of: {', '.join(sorted(set(own) - {NN_MASS, NON_LINEAR_UNITS}))}",
            )
        share = {key: min(1.0, limit / own[key]) for key, limit in problem.budget.limits.items()}
        count, price = int(options["budgets"]), problem.budget.keys[0]
        goals = []
        for i in range(1, count + 1):
            # The first is already cheaper than the original, the last is what was asked for.
            limits = {
                key: limit if i == count or own[key] <= limit
                else own[key] + (limit - own[key]) * i / count
                for key, limit in problem.budget.limits.items()
            }  # fmt: skip
            least = min(1 + (s - 1) * i / count for s in share.values())
            units = float(options["non_linear_units"]) * least * own[NON_LINEAR_UNITS]
            goals.append(Goal("", {NON_LINEAR_UNITS: units}, limits, price))
        return goals

    def _candidate(
        self, problem: Problem, run: Run, scaler: Scaler, answer: Answer, number: int, key: str,
        options: Mapping[str, Any],
    ) -> Candidate:  # fmt: skip
        # A tighter budget makes other networks: their names must differ, too.
        name = f"ran-i-{number:02}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"
        edits = (Scale(answer.widths, answer.depths),)
        weights = run.candidate_folder(name) / "drawn.safetensors"
        metric = problem.val_metric
        done = run.recall(f"ran-i/drawn/{name}")
        if done is None or not weights.exists():
            net = edits[0].apply(problem.net).eval()
            weights.parent.mkdir(parents=True, exist_ok=True)
            write_state(weights, net.state_dict())
            limit = int(options["val_images"]) or None
            value = problem.task.evaluate(net, "val", limit=limit)[problem.task.metric]
            done = run.record("drawn", f"ran-i/drawn/{name}", **{metric: value})
        predicted = {
            k: v for k, v in answer.figures.items() if k not in (NN_MASS, NON_LINEAR_UNITS)
        }
        stages = range(1, len(answer.widths) + 1)
        return Candidate(
            id=name, edits=edits, weights=f"candidates/{name}/{weights.name}", step=number,
            architecture={
                **{f"stage {s} width": w for s, w in zip(stages, answer.widths, strict=True)},
                **{f"stage {s} depth": d for s, d in zip(stages, answer.depths, strict=True)},
            },
            parent=ORIGINAL, predicted=predicted, metrics={metric: done[metric]}, fresh=True,
            changes=stage_changes(scaler.pricer, answer, number),
        )  # fmt: skip


def _best(scaler: Scaler, options: Mapping[str, Any], goal: Goal) -> Answer:
    """Return the heaviest network that is within the goal by its own prediction."""
    find = scaler.best if options["rule"] == "search" else scaler.uniform
    asked = goal
    for _ in range(_TIGHTENINGS):
        answer = find(asked)[0]
        shape = (answer.widths, answer.depths)
        real = scaler.pricer.figures([shape])[0]
        if goal.met(real):
            return Answer(*shape, real)
        # Interpolated interactions were a little too low: ask for as much less.
        tight = {
            key: min(bound, bound * goal.at_most[key] / real[key]) * 0.999
            for key, bound in asked.at_most.items()
        }
        asked = replace(asked, at_most=tight)
    raise InfeasibleBudget(
        f"no network was found that meets {goal}", "raise the budget, or widen the bounds"
    )


def _key(goal: Goal) -> str:
    limits = ",".join(f"{key}={value!r}" for key, value in sorted(goal.at_most.items()))
    return f"ran-i/{limits}"


def _joined(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))
