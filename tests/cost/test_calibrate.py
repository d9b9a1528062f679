# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from chipfit.cost import Cost
from chipfit.cost.calibrate import ENOUGH, calibrate, fit_model, half_width
from chipfit.cost.model import CalibrationModel, model_of, sizes_of
from chipfit.cost.predict import predict, predict_total
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.targets import NetworkCost
from chipfit.targets.analytic import Analytic


class Cold(Analytic):
    """Networks pay for weights and operators, which units do not, but not at the ends of units."""

    provenance = "measured"
    fingerprint = "cold 1"

    def cost_units(self, units):
        return [
            Cost({"latency_ms": self._alone(u)}, "measured", {"latency_ms": 0.0}) for u in units
        ]

    def _alone(self, unit):
        return unit.workload.macs / 1e5 + 2.0 * sizes_of(unit)[2]

    def cost(self, network):
        operators = sum(node.op.macs > 0 for node in network.nodes)
        inside = 0.9 * network.macs / 1e5
        latency = inside + 2e-5 * network.parameter_count + 0.01 * operators
        return NetworkCost(Cost({"latency_ms": latency}, "measured"))


class Compiled(Cold):
    provenance = "compiled"
    fingerprint = "compiled 1"


def networks(build):
    return [
        build(widths, size)
        for widths, size in [
            ([16], 8), ([16, 24], 12), ([32, 8, 8], 6), ([64], 4), ([8, 16, 8, 16], 8),
            ([48, 16], 16), ([24, 24, 24], 5), ([128], 6), ([8], 24), ([32, 96], 7), ([256], 3),
        ]
    ]  # fmt: skip


def test_what_networks_pay_for_weights_and_operators_is_found(bottlenecks):
    target, table = Cold(), CostTable()
    fitted = calibrate(target, networks(bottlenecks), table)
    assert fitted.model.weight_ms == pytest.approx(20, rel=0.15)
    assert fitted.model.operator_ms == pytest.approx(0.01, rel=0.15)
    assert fitted.model.edge_ms > 0
    unseen = bottlenecks([40, 12], 10)
    truth = target.cost(unseen).total["latency_ms"]
    guess = predict(unseen, target, table).total
    assert guess["latency_ms"] == pytest.approx(truth, rel=0.02)
    assert guess.spread["latency_ms"] == pytest.approx(guess["latency_ms"] * fitted.model.error)
    assert predict_total(unseen, target, table)["latency_ms"] == guess["latency_ms"]
    layers = sum(layer.cost["latency_ms"] for layer in predict(unseen, target, table).layers)
    assert layers == pytest.approx(guess["latency_ms"])
    factor_only = calibrate(target, networks(bottlenecks)[: ENOUGH - 1], CostTable()).model
    assert factor_only.linear and factor_only.factor > 1


def test_errors_are_those_of_networks_that_were_held_out(bottlenecks):
    target = Cold()
    few = networks(bottlenecks)[:3]
    fitted = calibrate(target, few, CostTable())
    ratios = [w / u for w, u in zip(fitted.whole_ms, fitted.units_ms, strict=True)]
    others = [sum(ratios[:i] + ratios[i + 1 :]) / 2 for i in range(3)]  # the median of two
    off = [other / own - 1 for other, own in zip(others, ratios, strict=True)]
    assert fitted.error == pytest.approx(max(map(abs, off)))
    assert fitted.model.error == pytest.approx(half_width(off))
    alone = calibrate(target, few[:1], CostTable())
    assert alone.model.error is None
    with pytest.raises(BadInput):
        _ = alone.error


def test_few_errors_make_wide_intervals():
    assert half_width([0.1, -0.1, 0.1]) == pytest.approx(0.318)
    assert half_width([0.1] * 1000) == pytest.approx(0.196)


def test_a_compiled_target_is_only_judged(bottlenecks):
    target, table = Compiled(), CostTable()
    fitted = calibrate(target, networks(bottlenecks), table)
    assert fitted.model.factor == 1.0 and fitted.model.linear
    off = [u / w - 1 for u, w in zip(fitted.units_ms, fitted.whole_ms, strict=True)]
    assert fitted.error == pytest.approx(max(map(abs, off)))


def test_the_fit_is_never_negative():
    rng = np.random.default_rng(0)
    columns = [rng.uniform(*ends, 20) for ends in ((1, 9), (0, 5), (9, 50), (0, 1))]
    features = np.stack(columns, axis=1)
    model = fit_model(features, 2 * features[:, 0] - 0.01 * features[:, 2] + features[:, 3])
    assert model.operator_ms == model.edge_ms == 0.0 and model.weight_ms >= 0.0
    assert model.factor == pytest.approx(2.0, rel=0.2)
    exact = np.array([1.1, 0.2, 0.01, 0.3]) * np.array([1, 1, 1, -1])
    many = np.repeat(features, 50, axis=0)
    found = fit_model(many, many @ exact)
    assert found.factor == pytest.approx(1.1, rel=0.02)
    assert found.weight_ms == pytest.approx(0.2, rel=0.05)
    assert found.operator_ms == pytest.approx(0.01, rel=0.05)
    assert found.edge_ms == pytest.approx(0.3, rel=0.2)
    weightless = features * np.array([1.0, 0.0, 1.0, 1.0])
    assert fit_model(weightless, 2 * features[:, 0]).weight_ms == 0.0


def test_a_model_is_kept_and_only_where_asked(bottlenecks, tmp_path):
    target = Cold()
    with CostTable(tmp_path / "t") as table:
        calibrate(target, networks(bottlenecks), table, store=False)
        assert model_of(target, table) == CalibrationModel()
        fitted = calibrate(target, networks(bottlenecks), table).model
    with CostTable(tmp_path / "t") as table:
        assert model_of(target, table) == fitted
        assert model_of(target, table, 3.0) == CalibrationModel(3.0)
        assert model_of(target, table, fitted) is fitted
    assert CalibrationModel.from_facts(CalibrationModel(2.0).facts()) == CalibrationModel(2.0)


def test_surcharges_are_taken_of_sizes(bottlenecks):
    workload = bottlenecks([16])
    units = Cold().units(workload)
    weights, operators, edges = map(sum, zip(*map(sizes_of, units), strict=True))
    assert weights == pytest.approx(workload.parameter_count / 1e6)
    assert operators == 3  # the sum multiplies nothing
    # each operator alone: 8 and 16 channels, 16 and 16, 16 and 8, three times 8; of 64 pixels
    assert edges == pytest.approx(64 * (24 + 32 + 24 + 24) / 1e6)


def test_a_unit_never_costs_less_than_nothing():
    model = CalibrationModel(2.0, edge_ms=1.0)
    assert model.unit_value("latency_ms", 1.0, -0.5) == 1.5
    assert model.unit_value("latency_ms", 1.0, -5.0) == 0.0
    assert model.unit_value("cycles", 7, -5.0) == 14
