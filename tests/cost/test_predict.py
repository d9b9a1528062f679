# SPDX-License-Identifier: Apache-2.0
import pytest

from chipfit.cost import Cost
from chipfit.cost.calibrate import calibrate
from chipfit.cost.model import CalibrationModel
from chipfit.cost.predict import predict, predict_many, predict_total
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, StorageError, UnsupportedOp
from chipfit.graph import Node, Workload, make_op
from chipfit.targets import NetworkCost, create
from chipfit.targets.analytic import Analytic


class OnePerMac(Analytic):
    """A device that takes a cycle per MAC, and half of that where operators are together."""

    name = "one-per-mac"
    parallel = True
    asked = 0

    @property
    def fingerprint(self):
        return "one-per-mac 1"

    def cost_units(self, units):
        self.asked += len(units)
        costs = super().cost_units(units)
        return [
            Cost({"cycles": c["macs"] + 1, "latency_ms": c["macs"] / 10}, "compiled", {})
            for c in costs
        ]

    def cost(self, network):
        latency = network.macs / 20
        return NetworkCost(Cost({"latency_ms": latency}, "compiled"))


def test_sums_over_units_and_says_predicted(bottlenecks):
    workload = bottlenecks([16, 24])
    target, table = OnePerMac(), CostTable()
    result = predict(workload, target, table)
    assert result.total.provenance == "predicted"
    assert result.total["cycles"] == workload.macs + len(workload)
    assert result.total["latency_ms"] == pytest.approx(workload.macs / 10)
    assert result.total["macs"] == workload.macs
    assert result.total["params"] == workload.parameter_count
    assert [layer.name for layer in result.layers] == [node.name for node in workload.nodes]
    assert sum(layer.cost["cycles"] for layer in result.layers) == result.total["cycles"]
    assert predict_total(workload, target, table)["cycles"] == result.total["cycles"]


def test_equal_units_are_priced_once_and_never_again(bottlenecks):
    target, table = OnePerMac(), CostTable()
    predict_many([bottlenecks([16, 16]), bottlenecks([16, 24])], target, table)
    assert target.asked == 4 + 3  # the second width adds three operators; sums are alike
    predict_many([bottlenecks([24, 16, 24])], target, table)
    assert target.asked == 7


def test_unknown_keys_stay_absent(bottlenecks):
    result = predict(bottlenecks([16]), create("analytic"), CostTable())
    assert "latency_ms" not in result.total
    assert "cycles" not in result.total
    assert result.total["peak_sram_bytes"] == (8 + 2 * 16) * 64


def test_the_peak_is_that_of_the_lifetimes(bottlenecks):
    # the block's input stays alive while its hidden tensors do: 8 + 16 + 16 channels of 8 x 8
    cost = create("analytic:precision=float32").cost(bottlenecks([16])).total
    assert cost["peak_sram_bytes"] == 4 * (8 + 16 + 16) * 64
    assert cost["weight_bytes"] == 4 * cost["params"]


def test_an_unknown_operator_is_named():
    op = make_op("unsupported", [(1, 4)], (1, 4), aten="aten::fft")
    node = Node("head.fft", op, ("x",), "y")
    workload = Workload((node,), ("x",), ("y",), {"x": (1, 4), "y": (1, 4)})
    with pytest.raises(UnsupportedOp, match=r"head\.fft: aten::fft"):
        predict(workload, create("analytic"), CostTable())


def test_calibration_is_fitted_stored_and_used(bottlenecks):
    target, table = OnePerMac(), CostTable()
    nets = [bottlenecks([w]) for w in (8, 16, 24)]
    fitted = calibrate(target, nets, table)
    assert fitted.factor == pytest.approx(0.5)
    assert fitted.error == pytest.approx(0)
    other = bottlenecks([32, 40])
    assert predict(other, target, table).total["latency_ms"] == pytest.approx(other.macs / 20)
    raw = predict(other, target, table, calibration=1.0)
    assert raw.total["latency_ms"] == pytest.approx(other.macs / 10)
    with pytest.raises(BadInput):
        calibrate(target, [], table)


def test_spread_adds_in_squares(bottlenecks):
    workload = bottlenecks([16])
    target, table = OnePerMac(), CostTable()
    units = target.units(workload)
    table.put_many(
        target.fingerprint,
        [(u.key, Cost({"latency_ms": 1.0}, "measured", {"latency_ms": 0.5}), "") for u in units],
    )
    total = predict(workload, target, table, calibration=2.0).total
    assert total["latency_ms"] == 8.0
    assert total.spread["latency_ms"] == pytest.approx(2.0)
    model = CalibrationModel(2.0, error=0.1)
    total = predict(workload, target, table, calibration=model).total
    assert total.spread["latency_ms"] == pytest.approx((2.0**2 + 0.8**2) ** 0.5)


def test_an_error_that_nobody_knows_is_absent(bottlenecks):
    target, table = OnePerMac(), CostTable()
    assert not predict(bottlenecks([16]), target, table).total.spread
    known = predict(bottlenecks([16]), target, table, CalibrationModel(error=0.25)).total
    assert known.spread["latency_ms"] == known["latency_ms"] / 4


def test_a_failing_disk_does_not_lose_what_was_stored(tmp_path, bottlenecks):
    target, table = OnePerMac(), CostTable(tmp_path / "t")
    predict(bottlenecks([16]), target, table)
    pages = table._connection.execute("PRAGMA page_count").fetchone()[0]
    table._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError):
        predict(bottlenecks(list(range(8, 400, 8))), target, table)
    assert predict(bottlenecks([16]), OnePerMac(), CostTable(tmp_path / "t")).total["cycles"]
