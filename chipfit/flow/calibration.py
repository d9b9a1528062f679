# SPDX-License-Identifier: Apache-2.0
"""Fit the factor from table sums to whole networks for a network about to be narrowed."""

from __future__ import annotations

from chipfit.cost.calibrate import calibrate
from chipfit.graph.channels import channel_groups
from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.methods.widths import WidthPricer
from chipfit.runs.run import Run

#: Uniform width multipliers of the networks that are measured whole.
MULTIPLIERS = (1.0, 0.75, 0.5, 0.35)


def calibration_factor(problem: Problem, run: Run) -> float:
    """Return the factor for this run; it is measured once and recalled after a restart."""
    done = run.recall("calibration")
    if done is None:
        problem.progress(f"calibrating predictions for {problem.target.name} on whole networks")
        networks = uniform_variants(problem)
        fitted = calibrate(problem.target, networks, problem.table)
        done = run.record(
            "calibration", "calibration", factor=fitted.factor,
            largest_error=fitted.error if len(networks) > 1 else None,
        )  # fmt: skip
    return float(done["factor"])


def uniform_variants(problem: Problem) -> list[Workload]:
    """Return the network at several uniform widths, aligned as the target likes."""
    groups = channel_groups(problem.net, problem.example, problem.keep)
    pricer = WidthPricer(problem, groups)
    step = problem.target.alignment
    networks = {}
    for multiplier in MULTIPLIERS:
        widths = {
            g.name: min(g.channels, max(step, round(g.channels * multiplier / step) * step))
            for g in groups
            if not g.frozen
        }
        workload = pricer.workload(widths)
        networks[workload.key] = workload
    return list(networks.values())
