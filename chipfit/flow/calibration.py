# SPDX-License-Identifier: Apache-2.0
"""Calibrating predictions: for any network, and for one that is about to be narrowed."""

from __future__ import annotations

from collections.abc import Callable

from chipfit.cost.calibrate import calibrate
from chipfit.cost.model import ERROR, CalibrationModel
from chipfit.cost.table import CostTable
from chipfit.flow.network import load_network
from chipfit.graph.capture import trace
from chipfit.graph.channels import channel_groups
from chipfit.graph.resize import resize
from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.methods.widths import WidthPricer
from chipfit.runs.run import Run
from chipfit.targets.base import Target
from chipfit.targets.measured import MeasuredTarget

#: Networks of the zoo that measured targets are calibrated on, with their input pixels and a
#: multiplier of all widths: inverted bottlenecks, residual blocks, plain and collapsed
#: convolutions, layer norms. Maps are large and small, weights few and many, so that what each
#: costs can be told apart; all of it takes about a minute.
MEASURED = (
    ("mobilenet_v2", 192, 0.75), ("mobilenet_v2", 96, 1.0), ("efficientnet_lite0", 160, 0.5),
    ("efficientnet_lite0", 128, 1.0), ("resnet18", 128, 0.25), ("resnet18", 96, 0.5),
    ("repvgg_a0", 160, 0.35), ("ran_e_gt", 192, 0.5), ("ran_e_c", 128, 0.75),
    ("ran_i_tiny", 96, 0.35), ("convnext_tiny", 160, 0.25), ("convnext_tiny", 96, 0.5),
)  # fmt: skip
#: The same for compiled targets, which need an estimate of the error only. The smallest network is
#: among them because that is where fixed latencies, and so errors, weigh most.
COMPILED = (
    ("mobilenet_v2", 96, 1.0), ("resnet18", 96, 1.0), ("ran_e_gt", 96, 1.0),
    ("tiny_mobilenet_v2", 28, 1.0),
)  # fmt: skip

#: Uniform width multipliers of the networks that are measured whole.
MULTIPLIERS = (1.0, 0.75, 0.5, 0.35)


def calibration_networks(target: Target) -> list[Workload]:
    """Return the networks that :func:`ensure_calibrated` costs as wholes on ``target``.

    Empty where there is nothing to calibrate: figures of a modelled target add up by themselves.
    """
    chosen: tuple[tuple[str, int, float], ...]
    if isinstance(target, MeasuredTarget):
        chosen = MEASURED
    elif target.provenance == "compiled":
        chosen = COMPILED
    else:
        return []
    found = []
    for name, size, multiplier in chosen:
        loaded = load_network(name, input_shape=(1, 3, size, size))
        found.append(_scaled(trace(loaded.net, loaded.example()), multiplier))
    return found


def _scaled(workload: Workload, multiplier: float) -> Workload:
    """Return ``workload`` with all widths but the outputs multiplied, to multiples of 8."""

    def width(old: int) -> int:
        return max(8, round(old * multiplier / 8) * 8)

    widths = {}
    for node in workload.nodes:
        if node.output in workload.outputs or multiplier == 1.0:
            continue
        if node.op.kind == "conv2d":
            widths[node.module] = width(node.op.output[1])
        elif node.op.kind == "linear":
            widths[node.module] = width(node.op.output[-1])
    constants = {
        name: width(max(workload.shapes[name]))
        for name in workload.constants
        if max(workload.shapes[name]) > 1 and multiplier != 1.0
    }
    return resize(workload, widths | constants)


def ensure_calibrated(
    target: Target,
    table: CostTable,
    progress: Callable[[str], None] = lambda line: None,
    asked: Workload | None = None,
) -> CalibrationModel:
    """Return the model that ``table`` predicts with; fit it first where the table has none.

    That happens once per table and target, on networks of the zoo
    (:func:`calibration_networks`): about a minute where they are measured, some seconds where they
    are compiled. The units priced for it stay in the table.

    Args:
        target: The device.
        table: Keeps prices and model.
        progress: Called with lines that say what is being done.
        asked: The network that is about to be predicted; it is left out, lest its own cost be
            "predicted" from itself.

    Raises:
        UnsupportedOp: The target refuses an operator of the calibration networks.
    """
    facts = table.facts(target.fingerprint)
    if ERROR in facts:
        return CalibrationModel.from_facts(facts)
    networks = [w for w in calibration_networks(target) if asked is None or w.key != asked.key]
    if not networks:
        return CalibrationModel.from_facts(facts)
    count = len(networks)
    progress(f"calibrating predictions for {target.name} on {count} networks, once per cost table")

    def tell(done: int, total: int) -> None:
        if done == total or done % 40 == 0:
            progress(f"priced {done} of {total} units")

    fitted = calibrate(target, networks, table, on_progress=tell)
    error = "unknown" if fitted.model.error is None else f"{100 * fitted.model.error:.2g} %"
    progress(f"calibrated: predictions are within about {error} (95 %)")
    return fitted.model


def calibration_factor(problem: Problem, run: Run) -> float:
    """Return the factor for this run; it is measured once and recalled after a restart."""
    done = run.recall("calibration")
    if done is None:
        problem.progress(f"calibrating predictions for {problem.target.name} on whole networks")
        networks = uniform_variants(problem)
        # For networks of this one kind alone: the table keeps the model for all kinds.
        fitted = calibrate(problem.target, networks, problem.table, store=False)
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
