# SPDX-License-Identifier: Apache-2.0
"""Predicting a whole network from the prices of its units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from chipfit.cost.cost import Cost
from chipfit.cost.model import CalibrationModel, model_of
from chipfit.cost.table import CostTable
from chipfit.graph.workload import Workload
from chipfit.targets.base import LayerCost, NetworkCost, Target, Unit
from chipfit.workers import WorkerPool

#: Keys of which a network's figure is the sum over its units.
ADDITIVE = ("latency_ms", "cycles", "energy_mj")


def predict(
    workload: Workload,
    target: Target,
    table: CostTable,
    calibration: float | CalibrationModel | None = None,
    pool: WorkerPool | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NetworkCost:
    """Predict what ``workload`` costs on ``target``, with provenance ``"predicted"``.

    Latency, cycles and energy are sums over units, absent units being priced first; MACs,
    parameters and weight bytes follow from the workload itself; peak memory is not additive and is
    reported only where the target's own model of it is (``Target.static_cost``).

    The spread of the total is the half-width of a 95 % interval: the error that the calibration
    had on networks that were held out of it, and the spreads of the units, added in squares. Where
    neither is known there is none.

    Args:
        workload: The network, batch 1.
        target: Cuts the network into units and prices them.
        table: Where prices are looked up and kept.
        calibration: A model, or a bare factor on the sums; ``None`` takes the model that
            :func:`chipfit.cost.calibrate.calibrate` stored in the table, else the sums as they are.
        pool: Worker processes for absent units; this process where ``None``.
        on_progress: Called with the numbers of absent units done and in all.

    Raises:
        UnsupportedOp: The target refuses an operator.
        StorageError: The table cannot be read or written.
    """
    return predict_many([workload], target, table, calibration, pool, on_progress)[0]


def predict_many(
    workloads: Sequence[Workload],
    target: Target,
    table: CostTable,
    calibration: float | CalibrationModel | None = None,
    pool: WorkerPool | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[NetworkCost]:
    """Predict several networks; units absent for any of them are priced in one parallel batch."""
    cut = [_units(workload, target) for workload in workloads]
    unique = {unit.key: unit for units in cut for unit in units}
    known = table.get_many(target.fingerprint, unique)
    if len(known) < len(unique):
        costs = table.fill(target, list(unique.values()), pool, on_progress)
        known = dict(zip(unique, costs, strict=True))
    model = model_of(target, table, calibration)
    return [_sum(w, units, known, target, model) for w, units in zip(workloads, cut, strict=True)]


def predict_total(
    workload: Workload,
    target: Target,
    table: CostTable,
    calibration: float | CalibrationModel | None = None,
) -> Cost:
    """Predict the additive keys only: the quick question that a search asks thousands of times.

    With all units in the table this takes well under a millisecond for networks of 60 operators
    whose operators were seen before. Absent units are priced first, as in :func:`predict`.
    """
    units = _units(workload, target)
    known = table.get_many(target.fingerprint, [unit.key for unit in units])
    costs = (
        [known[unit.key] for unit in units]
        if all(unit.key in known for unit in units)
        else table.fill(target, units)
    )
    model = model_of(target, table, calibration)
    return Cost(_totals(units, costs, model, target), "predicted")


def _units(workload: Workload, target: Target) -> list[Unit]:
    units = target.units(workload)
    if not units:
        target.check(workload)
    return units


def _totals(
    units: Sequence[Unit], costs: Sequence[Cost], model: CalibrationModel, target: Target | None
) -> dict[str, float]:
    """Sum the keys that all units know; a sum over some of them would be a made-up figure.

    With a target, what every network costs besides its units is added.
    """
    fixed = {} if target is None else target.fixed_cost()
    extra = [0.0] * len(units) if model.linear else [model.surcharge_ms(unit) for unit in units]
    totals = {}
    for key in ADDITIVE:
        if costs and all(key in cost.values for cost in costs):
            total = 0.0  # added one by one: sum() rounds otherwise from Python 3.12 on
            for cost, surcharge_ms in zip(costs, extra, strict=True):
                total += model.unit_value(key, cost.values[key], surcharge_ms)
            totals[key] = total + model.fixed_value(key, fixed.get(key, 0.0))
    return totals


def _sum(
    workload: Workload,
    units: list[Unit],
    known: dict[str, Cost],
    target: Target,
    model: CalibrationModel,
) -> NetworkCost:
    costs = [known[unit.key] for unit in units]
    sums = _totals(units, costs, model, target)
    total = Cost(sums | target.static_cost(workload), "predicted", _spread(sums, costs, model))
    layers = [
        LayerCost(
            *_label(unit), Cost(_totals([unit], [cost], model, None) | _statics(unit), "predicted")
        )
        for unit, cost in zip(units, costs, strict=True)
    ]
    return NetworkCost(total, tuple(layers))


def _spread(
    sums: dict[str, float], costs: Sequence[Cost], model: CalibrationModel
) -> dict[str, float]:
    """Return the half-width of each sum: the model's error and that of the units, in squares."""
    found = {}
    for key, total in sums.items():
        measured = all(key in cost.spread for cost in costs)
        if measured or model.error is not None:
            own = model.factor**2 * sum(c.spread[key] ** 2 for c in costs) if measured else 0.0
            found[key] = math.sqrt(own + (total * (model.error or 0.0)) ** 2)
    return found


def _label(unit: Unit) -> tuple[str, str]:
    nodes = [unit.workload.nodes[i] for i in unit.focus]
    if len(nodes) == 1:
        return nodes[0].name, nodes[0].op.kind
    return f"{nodes[0].name} .. {nodes[-1].name}", "+".join(n.op.kind for n in nodes)


def _statics(unit: Unit) -> dict[str, float]:
    ops = [unit.workload.nodes[i].op for i in unit.focus]
    return {
        "macs": sum(op.macs for op in ops),
        "params": sum(op.parameter_count for op in ops),
    }
