# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import chipfit as cf
from chipfit.cli.main import cli
from chipfit.cost.cost import Cost
from chipfit.export.onnx_int8 import Int8Scheme
from chipfit.flow.explain_layers import conversion_kinds, conversion_share, fine_kind, pair_layers
from chipfit.flow.explain_verdict import (
    by_kind,
    fixed_verdict,
    headline,
    measured_verdict,
    processor,
)  # fmt: skip
from chipfit.graph import trace
from chipfit.targets import LayerCost, Refusal, create
from chipfit.targets.compare import Comparison
from chipfit.targets.layer import RuntimeNode
from chipfit.targets.timing import Protocol

pytest.importorskip("onnxruntime")

QUICK = Protocol(min_rounds=3, max_rounds=5, sessions=1, warm_up=2)


class Small(nn.Sequential):
    input_shape = (1, 8, 16, 16)

    def __init__(self):
        super().__init__(
            nn.Conv2d(8, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=32),
            nn.GELU(), nn.Conv2d(32, 8, 1), nn.Softmax(1),
        )  # fmt: skip


@pytest.fixture(scope="module")
def workload():
    return trace(Small().eval(), torch.zeros(1, 8, 16, 16))


def executed(*rows):
    return [RuntimeNode(*row) for row in rows]


FLOAT = executed(
    ("/node_0/Conv", "Conv", 0.5, "0", "float32"), ("/node_1/Conv", "Conv", 0.2, "2", "float32"),
    ("/node_2/Conv", "Conv", 0.25, "4", "float32"), ("r", "ReorderOutput", 0.02, "", "float32", True),
    ("/node_3/Softmax", "Softmax", 0.03, "5", "float32"),
)  # fmt: skip
INT8 = executed(
    ("q", "QuantizeLinear", 0.1, "", "int8", True),
    ("/node_0/Conv_token", "QLinearConv", 0.25, "0", "int8"),
    ("/node_1/Conv_token", "QLinearConv", 0.2, "2", "int8"),
    ("/node_1/Gelu", "Gelu", 0.1, "2", "float32"),
    ("/node_1/q", "QuantizeLinear", 0.1, "2", "int8", True),
    ("/node_2/Conv_token", "QLinearConv", 0.125, "4", "int8"),
    ("d", "DequantizeLinear", 0.025, "", "int8", True),
    ("/node_3/Softmax", "Softmax", 0.1, "5", "float32"),
)


def test_layers_are_paired_with_the_speed_up_of_each(workload):
    first, second, third, last = pair_layers(workload, FLOAT, INT8, 0.5, frozenset({"Conv"}))
    assert [x.kind for x in (first, second, third)] == ["pointwise", "depthwise", "pointwise"]
    assert first.speed_up == pytest.approx(0.5 / (0.25 * 0.5))
    assert (first.precision, first.reason) == ("int8", "")
    assert second.precision == "int8+float32"
    assert second.int8_share == pytest.approx(0.3)
    assert second.staying_share == pytest.approx(0.1)
    assert second.conversion_share == pytest.approx(0.1)
    assert "activation gelu" in second.reason
    assert "behind the int8 operator" in second.reason
    assert third.executed == ("QLinearConv",)
    assert last.precision == "float32"
    assert last.reason == "the quantiser has no int8 form of Softmax"
    known = pair_layers(workload, FLOAT, INT8, 0.5, frozenset({"Softmax"}))[-1]
    assert known.reason == "the runtime has no int8 kernel for Softmax here"


def test_conversions_are_counted_by_kind():
    assert conversion_share(INT8) == pytest.approx(0.225)
    assert list(conversion_kinds(INT8)) == ["QuantizeLinear", "DequantizeLinear"]
    assert conversion_kinds(INT8)["QuantizeLinear"] == pytest.approx(0.2)


def test_the_verdict_names_what_matters(workload, monkeypatch):
    layers = pair_layers(workload, FLOAT, INT8, 0.5, frozenset({"Conv"}))
    others = {"u8s8": Comparison(0.4, 0.39, 0.41, 0.01), "s8s8": Comparison(0.97, 0.9, 1.0, 0.01)}
    comparison = Comparison(0.5, 0.49, 0.52, 0.01)
    monkeypatch.setattr("chipfit.flow.explain_verdict.has_vnni", lambda: False)
    target = create("onnxruntime-cpu:precision=int8,reduce_range=yes")
    lines = measured_verdict(
        target, comparison, others, layers, 0.02, conversion_kinds(INT8), target.scheme
    )
    text = "\n".join(lines)
    assert lines[0].startswith("int8 is faster than float32: 2.00x its speed [1.92, 2.04]")
    assert "no VNNI" in text
    assert "weights keep to 7 bits" in text
    assert "2 of 4 layers run in int8 alone" in text
    assert "pointwise 4.00x (75.0 %)" in text
    assert "Hardly faster, or slower: softmax" in text or "softmax 0.60x" in text
    assert (
        "22.5 % of the int8 network's time (QuantizeLinear 20.0 %, DequantizeLinear 2.5 %)" in text
    )
    assert "u8s8 2.50x, s8s8 1.03x" in text
    assert "do not ship it" in text  # 8-bit weights saturate without VNNI
    monkeypatch.setattr("chipfit.flow.explain_verdict.has_vnni", lambda: True)
    assert "VNNI: four byte products" in processor(Int8Scheme())
    assert processor(None) == ""
    assert by_kind([]) == []


@pytest.mark.parametrize(
    ("comparison", "start"),
    [
        (Comparison(1.25, 1.2, 1.3, 0.01), "int8 is slower than float32: 0.80x"),
        (Comparison(0.98, 0.95, 1.01, 0.03), "int8 is not distinguishable from float32: 1.02x"),
    ],
)
def test_headlines(comparison, start):
    assert headline(comparison).startswith(start)


def test_convolutions_are_told_apart(workload):
    assert [fine_kind(node.op) for node in workload.nodes] == [
        "pointwise", "depthwise", "pointwise", "softmax",
    ]  # fmt: skip
    plain = trace(nn.Conv2d(8, 8, 3, groups=2), torch.zeros(1, 8, 8, 8)).nodes[0].op
    assert fine_kind(plain) == "conv2d"


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_network_is_explained_where_both_precisions_run(name):
    pytest.importorskip("openvino")
    target = create(name)
    target.protocol = QUICK
    found = cf.explain(Small(), target)
    assert [layer.name for layer in found.layers] == ["0", "2", "4", "5"]
    for nodes in ("float_share", "int8_share"):
        assert 0 < sum(getattr(layer, nodes) for layer in found.layers) <= 1.0 + 1e-9
    assert found.layers[0].precision == "int8"
    assert 0 < sum(found.conversions.values()) < 1
    assert found.comparison.low <= found.comparison.ratio <= found.comparison.high
    assert found.float_ms > 0
    assert len(found.others) == (3 if name == "onnxruntime-cpu" else 0)
    assert len(found.verdict) >= 4
    document = json.loads(json.dumps(found.to_json()))
    assert document["int8"]["ratio"] == found.comparison.ratio
    assert document["layers"][1]["kind"] == "depthwise"


def test_targets_of_one_precision_are_explained(workload):
    assert "no int8 path" in cf.explain(Small(), "torch-cpu").verdict[0]
    pytest.importorskip("ethosu")
    found = cf.explain("tiny_mobilenet_v2", "ethos-u55-128")
    assert "everything that it runs is int8" in found.verdict[0]
    assert any("run on the npu" in line for line in found.verdict)
    assert found.to_json()["layers"]


def test_what_an_accelerator_leaves_to_others_is_named():
    target = create("analytic")
    refused = [Refusal("body.fft", "aten::fft", "unknown")]
    assert "body.fft: aten::fft (unknown)" in fixed_verdict(target, refused, [])[1]
    layers = [
        LayerCost("a", "conv2d", Cost({"latency_ms": 3.0}, "compiled"), "npu", "int8"),
        LayerCost("b", "softmax", Cost({"latency_ms": 1.0}, "compiled"), "cpu", "float32"),
    ]
    lines = fixed_verdict(target, [], layers)
    assert "1 of 2 layers run on the cpu, 25.0 % of the time: b (softmax)." in lines
    assert lines[-1] == "In float: b."


def test_the_command_prints_one_document(tmp_path):
    pytest.importorskip("ethosu")
    arguments = ["explain", "tiny_mobilenet_v2", "--target", "ethos-u55-128"]
    result = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["target"] == "ethos-u55-128"
    text = CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout
    assert "everything that it runs is int8" in text
