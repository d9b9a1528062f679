# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from chipfit.cost.calibrate import calibrate
from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, UnsupportedOp
from chipfit.export.onnx import to_onnx_bytes
from chipfit.graph import trace
from chipfit.graph.execute import WorkloadModule, synthetic_parameters
from chipfit.targets.onnxruntime_cpu import OnnxRuntimeCpu
from chipfit.targets.ort_network import onnx_of
from chipfit.targets.ort_session import open_run, profile, reference_bytes
from chipfit.targets.timing import Protocol

onnxruntime = pytest.importorskip("onnxruntime")

QUICK = Protocol(min_rounds=3, max_rounds=6, sessions=1, warm_up=2)


@pytest.fixture
def target():
    return OnnxRuntimeCpu(protocol=QUICK)


def run(data, x):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def test_what_is_measured_computes_the_network(bottlenecks):
    program = synthetic_parameters(bottlenecks([16, 24]))
    x = torch.randn(1, 8, 8, 8)
    expected = WorkloadModule(program)(x).numpy()
    assert run(onnx_of(program), x) == pytest.approx(expected, abs=1e-4)


def test_more_work_takes_longer(target, bottlenecks):
    small, large = target.cost_many([bottlenecks([16], 16), bottlenecks([256] * 3, 32)])
    assert large.total["latency_ms"] > 3 * small.total["latency_ms"]  # 190 times the MACs
    assert large.total.spread["latency_ms"] >= 0
    assert "peak_sram_bytes" not in large.total


def test_files_networks_and_weights_measure_together(target, bottlenecks, tmp_path):
    workload = bottlenecks([64], 16)
    program = synthetic_parameters(workload)
    path = tmp_path / "net.onnx"
    path.write_bytes(to_onnx_bytes(WorkloadModule(program), torch.zeros(1, 8, 16, 16)))
    costs = target.cost_many([workload, program, path])
    assert len(costs) == 3
    assert all(cost.total["latency_ms"] > 0 for cost in costs)
    assert costs[2].total["params"] == costs[0].total["params"] == workload.parameter_count
    assert "macs" not in costs[2].total
    shares = sum(layer.cost["latency_ms"] for layer in costs[2].layers)
    assert shares == pytest.approx(costs[2].total["latency_ms"])


def test_a_table_has_one_currency(target, bottlenecks):
    table = CostTable()
    predict(bottlenecks([16]), target, table)
    anchor = table.facts(target.fingerprint)["reference_ms"]
    other = OnnxRuntimeCpu(protocol=QUICK)
    table.anchor(other)
    assert other.reference_ms == target.reference_ms == anchor
    assert other.call_ms == target.call_ms
    assert 0 < target.call_ms < target.reference_ms
    stored = CostTable()
    stored.set_facts(target.fingerprint, {"reference_ms": 1000.0, "call_ms": 0.0})
    # a thousand times the true reference: the same ratio comes out as seconds
    assert predict(bottlenecks([16]), other, stored).total["latency_ms"] > 1.0


def test_blocks_are_priced_and_calibrated(target, bottlenecks):
    table = CostTable()
    fitted = calibrate(target, [bottlenecks([64, 64], 16), bottlenecks([128], 16)], table)
    assert 0.05 < fitted.factor < 5
    assert table.facts(target.fingerprint)["calibration"] == fitted.factor
    units = target.units(bottlenecks([64, 64], 16))
    assert [len(unit.focus) for unit in units] == [4, 4]
    assert units[0].key == units[1].key


def test_layers_belong_to_their_nodes(target):
    net = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 8, 1))
    cost = target.cost(trace(net.eval(), torch.zeros(1, 8, 64, 64)))
    first, second = cost.layers
    assert (first.name, second.name) == ("0", "2")
    assert first.cost["latency_ms"] > second.cost["latency_ms"]  # 9 times the MACs


def test_shares_of_the_reference_add_up():
    rows = profile(reference_bytes(), runs=5)
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert sum(row.kind == "Conv" for row in rows) == 6
    open_run(reference_bytes())()


def test_bad_models_are_told_apart(target, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(BadInput, match="not an ONNX model"):
        target.cost_file(path)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="not an ONNX model"):
        target.cost_file(path)
    with pytest.raises(UnsupportedOp, match="ONNX Runtime rejects the thing"):
        open_run(b"nonsense", place="the thing")
    with pytest.raises(BadInput):
        OnnxRuntimeCpu(threads=0)


def test_several_threads_are_another_target():
    one, two = OnnxRuntimeCpu(protocol=QUICK), OnnxRuntimeCpu(threads=2, protocol=QUICK)
    assert one.fingerprint != two.fingerprint
    assert two.reference_ms > 0
