# SPDX-License-Identifier: Apache-2.0
import pytest

from chipfit.cost.model import CalibrationModel, model_of
from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.flow import calibration
from chipfit.flow.calibration import calibration_networks, ensure_calibrated
from chipfit.targets import create
from chipfit.targets.onnxruntime_cpu import OnnxRuntimeCpu
from chipfit.targets.timing import Protocol

SMALL = (
    ("tiny_mobilenet_v2", 28, 1.0),
    ("tiny_mobilenet_v2", 20, 1.0),
    ("tiny_mobilenet_v2", 12, 1.0),
)


@pytest.fixture
def small(monkeypatch):
    """Calibrate on networks that take little time."""
    monkeypatch.setattr(calibration, "MEASURED", SMALL)
    monkeypatch.setattr(calibration, "COMPILED", SMALL)


def test_a_compiled_target_learns_its_error_once(small, tmp_path):
    pytest.importorskip("ethosu")
    target, lines = create("ethos-u55-128"), []
    with CostTable(tmp_path / "t") as table:
        model = ensure_calibrated(target, table, lines.append)
        assert model.factor == 1.0 and model.linear
        assert 0 <= model.error < 0.1
        assert "once per cost table" in lines[0] and "95 %" in lines[-1]
        asked = calibration_networks(target)[0]
        total = predict(asked, target, table).total
        assert total.spread["latency_ms"] == pytest.approx(model.error * total["latency_ms"])
    with CostTable(tmp_path / "t") as table:
        assert ensure_calibrated(target, table, lines.append) == model
        assert len([line for line in lines if "once per" in line]) == 1


def test_the_network_that_is_asked_for_is_left_out(small):
    pytest.importorskip("ethosu")
    target, lines = create("ethos-u55-128"), []
    asked = calibration_networks(target)[1]
    ensure_calibrated(target, CostTable(), lines.append, asked)
    assert "on 2 networks" in lines[0]


def test_a_measured_target_is_fitted(monkeypatch):
    pytest.importorskip("onnxruntime")
    networks = (("tiny_mobilenet_v2", 12, 1.0), ("tiny_mobilenet_v2", 8, 1.0))
    monkeypatch.setattr(calibration, "MEASURED", networks)
    quick = Protocol(min_rounds=3, max_rounds=3, sessions=1, warm_up=1, sample_ms=0.2)
    target, table = OnnxRuntimeCpu(protocol=quick), CostTable()
    model = ensure_calibrated(target, table)
    assert model == model_of(target, table)
    assert model.factor > 0 and model.error > 0


def test_counts_need_no_calibration():
    table = CostTable()
    assert calibration_networks(create("analytic")) == []
    assert ensure_calibrated(create("analytic"), table) == CalibrationModel()


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "ethos-u55-128"])
def test_calibration_networks_differ_in_kind(name):
    pytest.importorskip("onnxruntime" if name.startswith("onnx") else "ethosu")
    networks = calibration_networks(create(name))
    assert len({network.key for network in networks}) == len(networks) >= 3
    assert all(network.macs < 1e9 for network in networks)
