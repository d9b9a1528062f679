# SPDX-License-Identifier: Apache-2.0
"""Fitting a :class:`CalibrationModel` to networks that were compiled or measured as wholes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chipfit.cost.model import CalibrationModel, sizes_of
from chipfit.cost.predict import predict_many
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.graph.workload import Workload
from chipfit.targets.base import Target

#: Networks that a model of four figures needs; fewer get one factor.
ENOUGH = 8
#: Weight of the prior, which is one factor and nothing else, in units of a network.
PRIOR = 0.03
_SIGNS = np.array([1.0, 1.0, 1.0, -1.0])
#: Largest number of errors, and the 97.5 % quantile of Student's t for it.
_STUDENT = (
    (1, 12.71), (2, 4.30), (3, 3.18), (4, 2.78), (5, 2.57), (6, 2.45), (8, 2.31), (12, 2.18),
    (20, 2.09), (60, 2.0),
)  # fmt: skip


@dataclass(frozen=True)
class Calibration:
    """A fitted model and how well it does.

    Args:
        model: What predictions use.
        whole_ms: Latency of each network as a whole.
        units_ms: Sum of unit latencies of each network, uncorrected.
        held_out_ms: Latency of each as the model predicts it that was fitted on all the *others*.
    """

    model: CalibrationModel
    whole_ms: tuple[float, ...]
    units_ms: tuple[float, ...]
    held_out_ms: tuple[float, ...] = ()

    @property
    def factor(self) -> float:
        """The model's factor."""
        return self.model.factor

    @property
    def error(self) -> float:
        """Largest relative error over the networks, each predicted from all the *others*.

        With a single network there is nothing to hold out, and this raises ``BadInput``.
        """
        if len(self.held_out_ms) < 2:
            raise BadInput("one network cannot tell the error of its own calibration")
        pairs = zip(self.held_out_ms, self.whole_ms, strict=True)
        return max(abs(guess / whole - 1) for guess, whole in pairs)


def calibrate(
    target: Target,
    workloads: Sequence[Workload],
    table: CostTable,
    *,
    store: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Fit the model on whole networks and keep it in ``table``.

    Predictions from this table use it from then on. A compiled target's units are exact but for
    what lies outside of them, so nothing is fitted there: only the error is found.

    Args:
        target: Measures whole networks and units.
        workloads: At least one. From :data:`ENOUGH` on, the model has its four figures; below, a
            factor.
        table: Gets absent units and the model.
        store: Whether ``table`` keeps the model.
        on_progress: Called with the numbers of absent units done and in all.

    Raises:
        BadInput: No workload is given, or the target reports no latency.
    """
    if not workloads:
        raise BadInput("calibration needs at least one network")
    table.anchor(target)
    sums = predict_many(workloads, target, table, CalibrationModel(), on_progress=on_progress)
    whole_ms = tuple(cost.total["latency_ms"] for cost in target.cost_many(workloads))
    units_ms = tuple(cost.total["latency_ms"] for cost in sums)
    features = np.array([_features(w, target) for w in workloads])
    features[:, 0] = units_ms
    fit = _keep if target.provenance == "compiled" else fit_model
    held_out = []
    for i in range(len(workloads) if len(workloads) > 1 else 0):
        others = [j for j in range(len(workloads)) if j != i]
        model = fit(features[others], np.array(whole_ms)[others])
        held_out.append(_apply(model, features[i]))
    model = fit(features, np.array(whole_ms))
    if held_out:
        off = [guess / whole - 1 for guess, whole in zip(held_out, whole_ms, strict=True)]
        model = replace(model, error=half_width(off))
    if store:
        table.set_facts(target.fingerprint, model.facts(), replace=True)
    return Calibration(model, whole_ms, units_ms, tuple(held_out))


def half_width(errors: Sequence[float]) -> float:
    """Return the half-width of a 95 % interval of an error that is 0 on average.

    It is the root of the mean square times Student's t, which widens it where errors are few.

    Args:
        errors: Of networks that were held out, relative.
    """
    wide = next((t for count, t in _STUDENT if len(errors) <= count), 1.96)
    return wide * math.sqrt(statistics.fmean(error**2 for error in errors))


def fit_model(features: NDArray[np.float64], whole_ms: NDArray[np.float64]) -> CalibrationModel:
    """Fit the model by non-negative least squares of relative errors.

    A weak prior (ridge) pulls towards one factor. With fewer networks than :data:`ENOUGH` there is
    nothing but the factor: the median of ``whole / units``.

    Args:
        features: ``(networks, 4)``: sum of units in ms, million weights, operators that multiply,
            million elements at the ends of units.
        whole_ms: Latency of each as a whole, ``(networks,)``.
    """
    ratio = float(np.median(whole_ms / features[:, 0]))
    if len(features) < ENOUGH:
        return CalibrationModel(factor=ratio)
    rows = features * _SIGNS / whole_ms[:, None]  # relative: rows @ figures should be 1
    scale = np.abs(rows).mean(axis=0)
    scale[scale == 0] = 1.0
    ridge = PRIOR * math.sqrt(len(rows))
    prior = np.array([ratio * scale[0], 0.0, 0.0, 0.0])
    left = np.vstack([rows / scale, ridge * np.eye(4)])
    right = np.concatenate([np.ones(len(rows)), ridge * prior])
    best, least = prior, math.inf
    for mask in range(8):  # with so few unknowns, try every active set
        own = [0, *(i + 1 for i in range(3) if mask >> i & 1)]
        figures = np.zeros(4)
        figures[own] = np.linalg.lstsq(left[:, own], right, rcond=None)[0]
        loss = float(((left @ figures - right) ** 2).sum())
        if (figures >= 0).all() and loss < least:
            best, least = figures, loss
    return CalibrationModel(*(float(figure) for figure in best / scale))


def _features(workload: Workload, target: Target) -> list[float]:
    sizes = np.array([sizes_of(unit) for unit in target.units(workload)])
    return [0.0, *sizes.sum(axis=0).tolist()]


def _apply(model: CalibrationModel, features: NDArray[np.float64]) -> float:
    figures = np.array([model.factor, model.weight_ms, model.operator_ms, model.edge_ms])
    return float(features * _SIGNS @ figures)


def _keep(features: NDArray[np.float64], whole_ms: NDArray[np.float64]) -> CalibrationModel:
    return CalibrationModel()
