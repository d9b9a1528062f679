# SPDX-License-Identifier: Apache-2.0
"""``chipfit collapse``: what is merged, what it buys, and the file that is written."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.cost.model import CalibrationModel
from chipfit.cost.table import CostTable
from chipfit.errors import UnsupportedOp
from chipfit.flow.collapse import PredictedCost
from chipfit.graph.capture import trace
from chipfit.rewrite import collapse_steps

NETS = """
from torch import nn

def make():
    def block(i, o, h):
        return nn.Sequential(
            nn.Conv2d(i, h, 1, bias=False), nn.Conv2d(h, h, 3, 1, 1, groups=h),
            nn.BatchNorm2d(h), nn.Conv2d(h, o, 1), nn.ReLU())
    return nn.Sequential(block(8, 8, 48), block(8, 16, 48), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4))
make.input_shape = (1, 8, 16, 16)
"""
SHAPE = (1, 8, 16, 16)


@pytest.fixture
def nets(tmp_path):
    path = tmp_path / "linear_nets.py"
    path.write_text(NETS)
    return path


def test_each_step_says_what_it_bought_in_the_target_currency(nets, tmp_path):
    found = cf.collapse(f"{nets}:make", "analytic", output=tmp_path / "out")
    assert found.key == "macs"
    assert [step.kind for step in found.steps] == ["fold", "sequence", "sequence"]
    assert found.steps[-1].after == found.after["macs"] == 256 * 9 * 8 * (8 + 16) + 16 * 4
    assert found.steps[0].before == found.before["macs"]
    assert len(trace(found.net, torch.zeros(SHAPE))) == found.operators[1] == 5
    assert found.files == {} and "nothing was written" in found.notes[0]


def test_vela_decides_and_the_prediction_holds(nets, tmp_path):
    pytest.importorskip("ethosu")
    target = cf.target("ethos-u55-128")
    with CostTable(tmp_path / "t.sqlite") as table:  # calibration would only tell the error
        table.set_facts(target.fingerprint, CalibrationModel(error=0.01).facts())
    found = cf.collapse(f"{nets}:make", target, table=tmp_path / "t.sqlite", output=tmp_path)
    assert found.key == "latency_ms" and found.before.provenance == "compiled"
    merged = [step for step in found.steps if step.kind == "sequence"]
    assert merged and all(step.after < step.before for step in merged)
    assert found.steps[-1].after == pytest.approx(found.after["latency_ms"], rel=0.05)
    assert found.after["latency_ms"] < found.before["latency_ms"]
    assert found.files["tflite"].stat().st_size > 1000
    cost = target.cost_file(found.files["tflite"]).total
    assert cost["cycles"] == pytest.approx(found.after["cycles"], rel=0.02)


def test_the_command_prints_one_document(nets):
    done = subprocess.run(
        [sys.executable, "-m", "chipfit.cli.main", "collapse", f"{nets}:make", "--target",
         "analytic", "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["steps"][1]["into"] == ["0.1"]
    assert document["after"]["macs"] < document["before"]["macs"]
    assert document["operators"] == [9, 5]


def test_a_collapsed_network_exports_to_onnx_and_computes_the_same(tmp_path):
    pytest.importorskip("onnxruntime")
    from chipfit.export.onnx import to_onnx
    from chipfit.export.parity import verify_onnx

    net = cf.nets.create("repvgg_a0", num_classes=4, input_shape=(1, 3, 32, 32), deploy=False)
    example = torch.randn(1, 3, 32, 32)
    merged = collapse_steps(net.eval(), example).net
    path = to_onnx(merged, example, tmp_path / "net.onnx")
    verify_onnx(path, net, torch.randn(4, 3, 32, 32).numpy(), 1e-4)


def test_what_a_target_refuses_is_never_cheaper(tmp_path):
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x).abs()

    example = torch.randn(1, 3, 8, 8)
    with CostTable(tmp_path / "t.sqlite") as table:
        cost = PredictedCost(cf.target("analytic"), table, example)
        with pytest.raises(UnsupportedOp):
            cost(nn.Sequential(nn.Conv2d(3, 4, 1), Spectrum()))
        assert cost(nn.Conv2d(3, 4, 1)) == 64 * 12
        assert cost(nn.Sequential(nn.Conv2d(3, 4, 1), Spectrum())) == math.inf
