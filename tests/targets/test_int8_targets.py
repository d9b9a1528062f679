# SPDX-License-Identifier: Apache-2.0
"""int8 on the runtimes that run ONNX files: what is executed, and in which arithmetic."""

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput, UnknownName
from chipfit.export.onnx import to_onnx_bytes
from chipfit.export.onnx_int8 import Int8Scheme, quantise, random_feed
from chipfit.graph import capture
from chipfit.machine import has_vnni
from chipfit.targets import create
from chipfit.targets.timing import Protocol

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

QUICK = Protocol(min_rounds=3, max_rounds=5, sessions=1, warm_up=2)
RUNTIMES = ["onnxruntime-cpu", "openvino-cpu"]


def made(spec):
    target = create(spec)
    target.protocol = QUICK
    return target


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 32, 1), nn.ReLU6(), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(),
        nn.Conv2d(32, 16, 1), nn.GELU(),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def program(net):
    return capture(net, torch.zeros(1, 8, 16, 16))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_layers_tell_the_precision_that_they_run_in(runtime, program):
    floating, int8 = made(runtime), made(f"{runtime}:precision=int8")
    before, after = floating.runtime_nodes(program), int8.runtime_nodes(program)
    for nodes in (before, after):
        assert sum(node.share for node in nodes) == pytest.approx(1.0)
    assert {node.precision for node in before if node.precision} == {"float32"}
    layers = {node.name for node in program.workload.nodes}
    quantised = {n.layer for n in after if n.precision == "int8" and not n.conversion}
    assert layers <= quantised
    assert any(n.conversion for n in after)
    assert not any("uantizeLinear" in n.kind and not n.conversion for n in after)
    cost = int8.cost(program)
    assert {layer.precision for layer in cost.layers} <= {"int8", "float32"}
    assert cost.layers[0].precision == "int8"
    assert {layer.runs_on for layer in cost.layers} == {"cpu"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_files_run_in_their_own_precision_only(runtime, net, tmp_path):
    data = to_onnx_bytes(net, torch.zeros(1, 8, 16, 16))
    plain, small = tmp_path / "net.onnx", tmp_path / "int8.onnx"
    plain.write_bytes(data)
    small.write_bytes(quantise(data, [random_feed(data)], Int8Scheme()))
    floating, int8 = made(runtime), made(f"{runtime}:precision=int8")
    whole, part = floating.cost_file(plain).total, int8.cost_file(small).total
    assert part["params"] == whole["params"]  # scales and zero points are none
    assert whole["weight_bytes"] / 4 < part["weight_bytes"] < whole["weight_bytes"] / 2
    with pytest.raises(BadInput, match="precision=int8"):
        floating.cost_file(small)
    with pytest.raises(BadInput, match="precision=float32"):
        int8.cost_file(plain)
    named = {layer.name for layer in int8.cost_file(small).layers}
    assert {"0", "2", "4"} <= named or any("Conv" in name for name in named)


def test_options_make_distinct_targets():
    specs = [
        "onnxruntime-cpu", "onnxruntime-cpu:precision=int8,variant=s8s8",
        "onnxruntime-cpu:precision=int8,variant=u8u8",
        "onnxruntime-cpu:precision=int8,reduce_range=yes",
        "onnxruntime-cpu:precision=int8,reduce_range=no",
    ]  # fmt: skip
    targets = [create(spec) for spec in specs]
    assert len({target.fingerprint for target in targets}) == len(specs)
    assert all(create(t.spec).fingerprint == t.fingerprint for t in targets)
    scheme = create("onnxruntime-cpu:precision=int8").scheme
    assert scheme == Int8Scheme("u8s8", reduce_range=not has_vnni())
    assert not scheme.saturates
    assert create("onnxruntime-cpu:precision=int8").in_precision("float32").spec == RUNTIMES[0]
    with pytest.raises(UnknownName, match="u8s8"):
        create("onnxruntime-cpu:precision=int8,variant=u8s")
    with pytest.raises(BadInput, match="int8"):
        create("openvino-cpu:variant=u8s8")
    with pytest.raises(BadInput, match="unknown precision"):
        create("openvino-cpu:precision=float16")
    with pytest.raises(BadInput, match="reduce_range"):
        create("onnxruntime-cpu:precision=int8,reduce_range=maybe")
    with pytest.raises(BadInput, match="positive"):
        create("openvino-cpu:threads=0")
