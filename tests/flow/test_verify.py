# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, ParityError, UnknownName, UnsupportedOp
from chipfit.export.onnx import to_onnx
from chipfit.export.tflite import calibrate, to_tflite
from chipfit.files import write_state
from chipfit.flow.verify_layers import NodeFinder, compare_layers
from chipfit.flow.verify_reference import check_parity, open_reference
from chipfit.graph import trace
from chipfit.graph.capture import capture
from chipfit.targets.base import LayerCost
from chipfit.targets.onnxruntime_cpu import OnnxRuntimeCpu
from chipfit.targets.timing import Protocol

SHAPE = (1, 3, 16, 16)


def make_net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = cf.nets.create("tiny_mobilenet_v2", num_classes=6, input_shape=SHAPE, seed=seed)
    return net.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("exported")
    net = make_net()
    images = torch.rand(32, *SHAPE[1:]) * 2 - 1
    program = capture(net, images[:1])
    to_tflite(program, calibrate(program, [images])).save(place / "net.tflite")
    to_onnx(net, images[:1], place / "net.onnx")
    write_state(place / "right.safetensors", net.state_dict())
    write_state(place / "wrong.safetensors", make_net(1).state_dict())
    return place


def test_a_file_against_its_network(folder):
    pytest.importorskip("ethosu")
    spec = f"tiny_mobilenet_v2@{folder / 'right.safetensors'}"
    found = cf.verify(folder / "net.tflite", "ethos-u55-128", spec)
    assert "random inputs" in found.reference
    assert "right.safetensors" in found.reference
    assert found.top1_agreement > 0.5
    assert found.fallbacks == ()
    names = [node.name for node in trace(make_net(), torch.zeros(SHAPE)).nodes]
    compared = [node for item in found.comparison for node in item.nodes]
    assert compared == names
    real = sum(item.real_ms for item in found.comparison)
    assert real == pytest.approx(found.cost.total["latency_ms"], rel=1e-3)
    assert found.predicted["latency_ms"] == pytest.approx(
        sum(item.predicted_ms for item in found.comparison)
    )
    assert max(abs(item.error) for item in found.comparison) < 0.3
    assert abs(found.errors()["cycles"]) < 0.05
    assert sum(node.share for node in found.runtime) == pytest.approx(1)
    document = found.to_json()
    assert json.loads(json.dumps(document)) == document
    assert {layer["runs_on"] for layer in document["layers"]} == {"npu"}
    assert {layer["precision"] for layer in document["layers"]} == {"int8"}


def test_another_network_is_told_apart(folder):
    wrong = f"tiny_mobilenet_v2@{folder / 'wrong.safetensors'}"
    for name, precision in (("net.tflite", "int8"), ("net.onnx", "float32")):
        reference = open_reference(wrong, folder / name)
        with pytest.raises(ParityError, match="differs"):
            check_parity(folder / name, reference, precision)
        right = open_reference(wrong.replace("wrong", "right"), folder / name)
        assert check_parity(folder / name, right, precision).max_abs_error < 0.2
        assert right.inputs.shape == (16, *SHAPE[1:])


def test_random_inputs_are_such_as_the_file_can_hold(folder):
    reference = open_reference("tiny_mobilenet_v2", folder / "net.tflite")
    assert np.abs(reference.inputs).max() <= 1.02  # it was calibrated on -1 .. 1
    again = open_reference("tiny_mobilenet_v2", folder / "net.tflite")
    assert np.array_equal(reference.inputs, again.inputs)


def test_layers_of_an_onnx_file_find_their_network(folder):
    pytest.importorskip("onnxruntime")
    target = OnnxRuntimeCpu(protocol=Protocol(min_rounds=3, max_rounds=3, sessions=1, warm_up=1))
    spec = f"tiny_mobilenet_v2@{folder / 'right.safetensors'}"
    found = cf.verify(folder / "net.onnx", target, spec)
    names = [node.name for node in trace(make_net(), torch.zeros(SHAPE)).nodes]
    assert [node for item in found.comparison for node in item.nodes] == names
    assert len(found.comparison) == len(target.units(trace(make_net(), torch.zeros(SHAPE))))
    assert sum(item.real_ms for item in found.comparison) == pytest.approx(
        found.cost.total["latency_ms"]
    )
    assert {layer.runs_on for layer in found.cost.layers} == {"cpu"}
    assert found.max_abs_error < 1e-3


@pytest.mark.parametrize(
    ("against", "kind"),
    [
        ("mobilnet_v2", UnknownName),
        ("runs/none:knee", BadInput),
        ("tiny_mobilenet_v2@none.safetensors", Exception),
    ],
)
def test_mistaken_references_have_a_hint(folder, against, kind):
    with pytest.raises(kind) as caught:
        open_reference(against, folder / "net.tflite")
    assert isinstance(caught.value, cf.errors.ChipfitError)
    assert caught.value.message


def test_fallbacks_are_reported_and_strictly_refused(tmp_path):
    pytest.importorskip("ethosu")
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Upsample(scale_factor=3, mode="bilinear"), nn.Conv2d(16, 8, 1)
    ).eval()
    images = torch.rand(8, 3, 18, 18)
    program = capture(net, images[:1])
    path = tmp_path / "net.tflite"
    to_tflite(program, calibrate(program, [images])).save(path)
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Upsample(scale_factor=3,"
        " mode='bilinear'), nn.Conv2d(16, 8, 1))\n"
    )
    write_state(tmp_path / "w.safetensors", net.state_dict())
    spec = f"{tmp_path / 'nets.py'}:make@{tmp_path / 'w.safetensors'}"
    found = cf.verify(path, "ethos-u55-128", spec)
    document = found.to_json()
    assert [(f["name"], f["kind"]) for f in document["fallbacks"]] == [("1", "ResizeBilinear")]
    assert "latency_ms" not in document["cost"]
    assert "latency_ms" not in document["predicted"]
    assert [item["name"] for item in document["comparison"]] == ["0", "2"]
    with pytest.raises(UnsupportedOp, match="1 \\(ResizeBilinear\\)"):
        cf.verify(path, "ethos-u55-128", strict=True)


def test_names_of_exporters_and_compilers():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()))
    finder = NodeFinder(trace(net.eval(), torch.zeros(1, 3, 4, 4)))
    for name in ("0.0", "0.0_part_1", "0.0:padded", "0.2", "/0/0.0/Conv", "/0/0.2/Relu_output_0"):
        assert finder.find(name) == "0.0"
    assert finder.find("ReorderInput") == ""
    assert finder.find("/elsewhere/Conv") == ""
    finder = NodeFinder(trace(make_net(), torch.zeros(SHAPE)))
    path = "/" + "features/features.2/conv/conv.1/conv.1.2/Clip_output_0_nchwc"
    assert finder.find(path) == "features.2.conv.1.0"


def layer(name, latency_ms):
    return LayerCost(name, "", Cost({"latency_ms": latency_ms}, "measured"))


def test_what_was_fused_away_joins_what_came_before():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
    workload = trace(net, torch.zeros(1, 3, 4, 4))
    predicted = [layer("0", 1.0), layer("1", 2.0), layer("2", 4.0)]
    real = [layer("Reorder", 0.25), layer("0", 3.0), layer("Cast", 0.5), layer("2", 4.0)]
    first, last = compare_layers(workload, real, predicted)
    assert first.nodes == ("0", "1")
    assert first.name == "0 .. 1"
    assert first.real_layers == ("Reorder", "0", "Cast")
    assert (first.predicted_ms, first.real_ms) == (3.0, 3.75)
    assert first.error == pytest.approx(-0.2)
    assert (last.nodes, last.predicted_ms, last.real_ms, last.error) == (("2",), 4.0, 4.0, 0.0)
    assert compare_layers(workload, [layer("elsewhere", 1.0)], predicted) == []
    (only,) = compare_layers(workload, [layer("2", 7.0)], predicted)
    assert only.nodes == ("0", "1", "2")
    assert only.predicted_ms == 7.0
