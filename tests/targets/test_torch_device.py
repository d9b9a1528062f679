# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from chipfit.errors import BadInput, MissingBackend, UnknownName
from chipfit.graph import capture
from chipfit.targets import create, measured_roofline
from chipfit.targets.cuda import Cuda
from chipfit.targets.timing import Protocol
from chipfit.targets.torch_device import TorchCpu
from chipfit.targets.torch_module import NetworkModule

QUICK = Protocol(min_rounds=3, max_rounds=5, sessions=1, warm_up=2)


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU6(), nn.Conv2d(32, 16, 1)
    )
    return capture(net.eval(), torch.zeros(1, 8, 24, 24))


def test_what_is_timed_computes_the_network(program):
    module = NetworkModule(program).eval()
    x = torch.randn(1, 8, 24, 24)
    (expected,) = module(x)
    for mode in ("eager", "channels_last"):
        target = TorchCpu(mode, protocol=QUICK)
        subject = target._prepare(program)
        (found,) = target._function(subject)(x)
        assert torch.allclose(found, expected, atol=1e-5)
    assert subject.content.inputs[0].is_contiguous(memory_format=torch.channels_last)


def test_instances_share_nothing_but_the_description(program):
    module = NetworkModule(program)
    copy = module.fresh()
    assert copy.load is module.load
    places = {buffer.data_ptr() for buffer in module.buffers()}
    assert not places & {buffer.data_ptr() for buffer in copy.buffers()}


def test_operators_belong_to_their_nodes(program):
    nodes = TorchCpu(protocol=QUICK).runtime_nodes(program)
    assert sum(node.share for node in nodes) == pytest.approx(1.0)
    assert {node.layer for node in nodes} == {node.name for node in program.workload.nodes}
    assert {node.precision for node in nodes} == {"float32"}
    assert any("conv" in node.kind for node in nodes)


def test_threads_are_given_back(program):
    before = torch.get_num_threads()
    target = TorchCpu(threads=before + 1, protocol=QUICK)
    seen = []
    with target.settings():
        seen.append(torch.get_num_threads())
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_compiled_networks_have_no_times_of_layers(program):
    target = create("torch-cpu:mode=compiled")
    target.protocol = QUICK
    subject = target._prepare(program)
    x = subject.content.inputs[0]
    assert torch.allclose(subject.content.compiled()(x)[0], NetworkModule(program)(x)[0], atol=1e-5)
    cost = target.cost(program)
    assert cost.total["latency_ms"] > 0
    assert all("latency_ms" not in layer.cost for layer in cost.layers)
    assert [layer.cost["macs"] for layer in cost.layers] == [
        node.op.macs for node in program.workload.nodes
    ]


def test_the_roofline_is_what_the_extremes_reach(monkeypatch):
    monkeypatch.setattr(measured_roofline, "STREAMED", (64, 256))
    target = TorchCpu(protocol=QUICK)
    target.roofline_side = 16
    roofline = target.roofline()
    assert roofline.provenance == "measured"
    assert roofline.memory == "main memory"
    assert roofline.macs_per_s > 1e6
    assert roofline.bytes_per_s > 1e6
    assert target.roofline() is roofline


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="channels_last"):
        create("torch-cpu:mode=channel_last")
    with pytest.raises(BadInput, match="float32"):
        create("torch-cpu:precision=int8")
    with pytest.raises(BadInput, match="reads no files"):
        create("torch-cpu").cost_file(tmp_path / "net.onnx")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_way_out_is_told():
    with pytest.raises(MissingBackend, match="torch-cpu"):
        create("cuda:precision=float16,mode=compiled")
    with pytest.raises(BadInput, match="replay"):
        create("cuda:replay=perhaps")
    assert Cuda.precisions == ("float32", "float16")
