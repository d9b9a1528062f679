# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.cost.model import ERROR
from chipfit.cost.table import CostTable
from chipfit.errors import UnsupportedOp
from chipfit.graph import trace
from chipfit.targets.onnxruntime_cpu import OnnxRuntimeCpu
from chipfit.targets.timing import Protocol


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).abs()


def small():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32 * 16, 10)
    )


SHAPE = (1, 3, 8, 8)


def test_layers_stand_as_executed_with_place_precision_and_share():
    pytest.importorskip("ethosu")
    document = cf.profile(small(), "ethos-u55-128", SHAPE).to_json()
    executed = [node.name for node in trace(small(), torch.zeros(SHAPE)).nodes]
    assert [layer["name"] for layer in document["layers"]] == executed
    assert {layer["runs_on"] for layer in document["layers"]} == {"npu"}
    assert {layer["precision"] for layer in document["layers"]} == {"int8"}
    assert sum(layer["share"] for layer in document["layers"]) == pytest.approx(1)
    assert document["noise"] is None
    dearest = max(document["layers"], key=lambda layer: layer["cost"]["latency_ms"])
    assert dearest["share"] == max(layer["share"] for layer in document["layers"])


def test_counts_have_no_share_of_the_latency():
    document = cf.profile(small(), "analytic", SHAPE).to_json()
    assert {layer["share"] for layer in document["layers"]} == {None}
    assert document["cost"]["macs"] == sum(x["cost"]["macs"] for x in document["layers"])


@pytest.mark.parametrize("predict", [False, True])
@pytest.mark.parametrize("target", ["analytic", "ethos-u55-128"])
def test_all_unknown_operators_are_named(target, predict):
    if target != "analytic":
        pytest.importorskip("ethosu")
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Fourier(), nn.Conv2d(8, 8, 3), Fourier())
    unknown = [n.name for n in trace(net, torch.zeros(SHAPE)).nodes if n.op.kind == "unsupported"]
    assert len(unknown) >= 2
    with pytest.raises(UnsupportedOp) as caught:
        cf.profile(net, target, SHAPE, predict=predict)
    assert all(name in caught.value.message for name in unknown)
    assert "fft" in caught.value.message
    assert "chipfit inspect" in caught.value.hint


def test_predictions_say_so_and_how_far_off_they_may_be(tmp_path):
    pytest.importorskip("ethosu")
    path = tmp_path / "calibrated.sqlite"
    with CostTable(path) as table:  # else the whole calibration would run first
        table.set_facts(cf.target("ethos-u55-128").fingerprint, {ERROR: 0.02})
    found = cf.profile(small(), "ethos-u55-128", SHAPE, predict=True, table=path)
    document = found.to_json()
    assert document["provenance"] == "predicted"
    error_ms = document["spread"]["latency_ms"]
    assert error_ms == pytest.approx(0.02 * document["cost"]["latency_ms"])
    whole = cf.profile(small(), "ethos-u55-128", SHAPE).cost.total["cycles"]
    assert found.cost.total["cycles"] == pytest.approx(whole, rel=0.05)


def test_noise_of_this_machine_is_measured_where_asked_for():
    pytest.importorskip("onnxruntime")
    target = OnnxRuntimeCpu(protocol=Protocol(min_rounds=3, max_rounds=3, sessions=2, warm_up=1))
    found = cf.profile(small(), target, SHAPE, noise=True)
    assert found.noise is not None
    assert found.noise >= 0
    document = found.to_json()
    assert document["noise"] == found.noise
    assert document["spread"]["latency_ms"] > 0
    assert cf.profile(small(), "analytic", SHAPE, noise=True).noise is None
