# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.flow.inspect_layers import counted_layers, inspect_layers
from chipfit.flow.inspect_widths import misaligned
from chipfit.graph import trace
from chipfit.graph.channels import ChannelGroup, Member
from chipfit.targets.analytic import Analytic
from chipfit.targets.base import LayerCost, NetworkCost, Roofline

KEYS = {
    "network", "target", "groups", "unsupported", "misaligned", "macs", "params", "layers",
    "roofline", "curves", "refusals", "seconds", "left_out",
}  # fmt: skip


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).abs()


def with_unknown_operator():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 20, 1), nn.ReLU(),
        nn.Conv2d(20, 24, 1), Fourier(), nn.Conv2d(24, 8, 1),
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self, dim=32, heads=4):
        super().__init__()
        self.patch, self.heads = nn.Conv2d(3, dim, 8, 8), heads
        self.norm, self.qkv = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim)
        self.proj, self.head = nn.Linear(dim, dim), nn.Linear(dim, 10)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        n, length, dim = x.shape
        shape = (n, length, 3, self.heads, dim // self.heads)
        q, k, v = self.qkv(self.norm(x)).reshape(shape).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * 0.35).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(n, length, dim))
        return self.head((x + self.mlp(x)).mean(1))


NETS = {
    "resnet18": ("resnet18", (1, 3, 64, 64)),
    "tiny_mobilenet_v2": ("tiny_mobilenet_v2", (1, 1, 28, 28)),
    "unknown operator": (with_unknown_operator, (1, 3, 16, 16)),
    "attention": (Attention, (1, 3, 32, 32)),
}


def network(name):
    net, shape = NETS[name]
    return (net if isinstance(net, str) else net()), shape


def check_document(document, target):
    assert set(document) >= KEYS
    assert json.loads(json.dumps(document)) == document
    assert document["target"] == target
    assert all(set(g) == {"name", "channels", "layers", "frozen"} for g in document["groups"])
    assert document["groups"]
    for kind in ("unsupported", "refusals"):
        assert all(set(r) == {"name", "kind", "reason"} for r in document[kind])
        assert all(r["reason"] for r in document[kind])
    shares = [layer["share"] for layer in document["layers"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert all(layer["bound"] in ("arithmetic", "memory", "") for layer in document["layers"])
    for curve in document["curves"]:
        assert curve["channels"] == sorted(curve["channels"])
        assert len(curve["channels"]) == len(curve["latency_ms"]) > 1
        assert curve["present"] in curve["channels"]
        assert all(cliff["channels"] in curve["channels"] for cliff in curve["cliffs"])


@pytest.mark.parametrize("target", [None, "analytic"])
@pytest.mark.parametrize("name", NETS)
def test_every_network_is_reported(name, target):
    net, shape = network(name)
    found = cf.inspect(net, shape, target)
    document = found.to_json()
    check_document(document, target)
    unknown = [r["name"] for r in document["unsupported"]]
    assert bool(unknown) == (name == "unknown operator")
    assert document["curves"] == []
    if target is None:
        assert document["cost"] is None
        assert document["refusals"] == []
    else:
        assert [r["name"] for r in document["refusals"]] == unknown
        assert (document["cost"] is None) == bool(unknown)
        assert any("analytic knows no latency" in line for line in document["left_out"])
    if not unknown:
        assert document["macs"] == sum(layer["macs"] for layer in document["layers"]) > 0


def test_groups_of_a_residual_network_are_coupled():
    groups = {g["name"]: g for g in cf.inspect("resnet18", (1, 3, 32, 32)).to_json()["groups"]}
    assert {"conv1", "layer1.0.conv2", "layer1.1.conv2"} <= set(groups["conv1"]["layers"])
    assert groups["conv1"]["channels"] == 64
    assert groups["layer1.0.conv1"]["frozen"] is None
    assert "output" in groups["fc"]["frozen"]


@pytest.mark.parametrize("name", ["tiny_mobilenet_v2", "unknown operator", "attention"])
def test_on_ethos_u(name):
    pytest.importorskip("ethosu")
    net, shape = network(name)
    document = cf.inspect(net, shape, "ethos-u55-128", seconds=12).to_json()
    check_document(document, "ethos-u55-128")
    assert document["curves"]
    assert all(layer["runs_on"] == "npu" for layer in document["layers"])
    assert all(layer["precision"] == "int8" for layer in document["layers"])
    assert any(layer["utilisation"] for layer in document["layers"])
    assert document["roofline"]["macs_per_s"] == 64e9
    if name == "unknown operator":
        assert document["cost"] is None
        assert "cannot run" in document["cost_unknown"]
        assert len(document["layers"]) == 4
        frozen = {group["name"]: group["frozen"] for group in document["groups"]}
        assert "not followed" in frozen["4"]  # a transform may mix channels, for all that is known
        assert {curve["layer"] for curve in document["curves"]} == {"0", "2"}
    else:
        assert document["refusals"] == []
        assert document["cost"]["latency_ms"] == pytest.approx(
            sum(layer["cost"]["latency_ms"] for layer in document["layers"]), rel=0.02
        )


def test_an_operator_left_to_the_cpu_hides_no_other():
    pytest.importorskip("ethosu")
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Upsample(scale_factor=3, mode="bilinear"), nn.Conv2d(16, 8, 1)
    )
    found = cf.inspect(net, (1, 3, 18, 18), "ethos-u55-128", seconds=0)
    assert [(r.name, r.kind) for r in found.refusals] == [("1", "resize")]
    assert found.unsupported == ()
    assert {layer.name for layer in found.layers} == {"0", "2"}
    assert all(layer.cost["latency_ms"] > 0 for layer in found.layers)
    assert found.cost is None


class Steps(Analytic):
    """Dense convolutions cost a millisecond for every eight output channels begun."""

    name = "steps"
    alignment = 8
    fingerprint = "steps 1"

    def _op_cost(self, op):
        dense = op.kind == "conv2d" and not op.depthwise
        return Cost({"latency_ms": float(math.ceil(op.output[1] / 8) if dense else 0)}, "modelled")

    def cost(self, network):
        workload = getattr(network, "workload", network)
        layers = tuple(LayerCost(n.name, n.op.kind, self._op_cost(n.op)) for n in workload.nodes)
        total = sum(layer.cost["latency_ms"] for layer in layers)
        return NetworkCost(Cost({"latency_ms": total}, "modelled"), layers)


def test_cliffs_of_a_known_cost_are_found_exactly():
    net = nn.Sequential(nn.Conv2d(3, 20, 1), nn.Conv2d(20, 16, 1), nn.Conv2d(16, 8, 1))
    found = cf.inspect(net, (1, 3, 4, 4), Steps())
    first, second = found.curves
    assert (first.layer, second.layer) == ("0", "1")  # 3 + 2 ms before 2 + 1 ms
    # The width of "0" changes "0" and its reader "1", which costs 2 ms at any of these widths.
    assert [c.to_json() for c in first.cliffs] == [
        {"channels": 16, "to": 17, "factor": 5 / 4},
        {"channels": 24, "to": 25, "factor": 6 / 5},
    ]
    assert [(c.channels, c.factor) for c in second.cliffs] == [(8, 3 / 2), (16, 4 / 3), (24, 5 / 4)]
    assert found.left_out == ()
    disliked = {item["name"]: item for item in found.misaligned}
    assert set(disliked) == {"0"}
    assert disliked["0"]["channels"] == 20
    assert disliked["0"]["better"] == [
        {"channels": 16, "latency_ms_change": -1.0},
        {"channels": 24, "latency_ms_change": 0.0},
    ]


def test_a_wider_layer_that_costs_less_is_told():
    class Odd(Steps):
        fingerprint = "odd 1"

        def _op_cost(self, op):
            cheap = op.kind == "conv2d" and op.output[1] == 24
            return Cost({"latency_ms": 1.0 if cheap else 2.0}, "modelled")

    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1))
    item = next(i for i in cf.inspect(net, (1, 3, 4, 4), Odd()).misaligned if i["name"] == "0")
    assert item["reason"] == "a wider layer costs less"
    assert item["better"] == [{"channels": 24, "latency_ms_change": -1.0}]


def test_heads_that_are_multiples_by_themselves_are_not_disliked():
    index = tuple(tuple(range(16 * head, 16 * head + 16)) for head in range(3))
    heads = ChannelGroup("qkv", 3, (Member("qkv", "out", index),))
    odd = ChannelGroup("odd", 3, (Member("odd", "out", ((0,), (1,), (2,))),))
    assert [item["name"] for item in misaligned([heads, odd], [], 8)] == ["odd"]


def test_no_time_means_no_curves_but_all_else():
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1))
    found = cf.inspect(net, (1, 3, 4, 4), Steps(), seconds=0)
    assert found.curves == ()
    assert found.cost is not None
    assert any("out of time" in line for line in found.left_out)
    with pytest.raises(BadInput, match="not a time"):
        cf.inspect(net, (1, 3, 4, 4), Steps(), seconds=-1)


def test_steps_of_eight_channels_on_ethos_u55():
    """Hidden channels of expand, depthwise, project: a step of the NPU is 8 channels."""
    pytest.importorskip("ethosu")
    width = 24
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, width, 1), nn.ReLU6(),
        nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU6(), nn.Conv2d(width, 8, 1),
    )  # fmt: skip
    found = cf.inspect(net, (1, 3, 28, 28), "ethos-u55-128", seconds=40)
    curve = next(curve for curve in found.curves if curve.layer == "1")
    assert {16, 17, 24, 25, 32, 33} <= set(curve.channels)
    rises = [(c.channels, c.to) for c in curve.cliffs if c.factor > 1]
    assert rises == [(16, 17), (24, 25), (32, 33)]
    assert curve.at(23) == pytest.approx(curve.at(24), rel=0.02)


def test_intensity_and_bound_by_hand():
    net = nn.Sequential(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16))
    workload = trace(net, torch.zeros(1, 8, 10, 10))
    roofline = Roofline(1e9, 1e6, "flash", "specified", 1e8, "SRAM")
    layers = [
        LayerCost("0", "conv2d", Cost({"latency_ms": 0.4}, "compiled")),
        LayerCost("1", "conv2d", Cost({"latency_ms": 0.1}, "compiled")),
    ]
    dense, depthwise = inspect_layers(workload, layers, "int8", roofline)
    # Weights 8 * 16 + 16 biases of 4 bytes = 192; in 800, out 1600; 100 * 16 * 8 MACs.
    assert dense.macs == 12800
    assert dense.macs_per_byte == pytest.approx(12800 / (192 + 2400))
    # Arithmetic 12.8 us, flash 192 us, SRAM 24 us.
    assert dense.bound == "memory"
    assert dense.utilisation == pytest.approx(0.192 / 0.4)
    assert dense.share == pytest.approx(0.8)
    # 16 * 9 + 64 weights, 3200 activations, 14400 MACs: 14.4 us, 208 us, 32 us.
    assert depthwise.macs_per_byte == pytest.approx(14400 / (208 + 3200))
    assert depthwise.utilisation == pytest.approx(2.08)  # quicker than its weights can be read


def test_a_block_is_the_sum_of_its_operators():
    net = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.Conv2d(16, 8, 1, bias=False))
    workload = trace(net, torch.zeros(1, 8, 10, 10))
    block = LayerCost("0 .. 1", "conv2d+conv2d", Cost({"latency_ms": 1.0}, "measured"))
    (layer,) = inspect_layers(workload, [block], "float32", None)
    assert layer.macs == 2 * 12800
    assert layer.macs_per_byte == pytest.approx(25600 / (4 * (2 * 128 + 2 * 2400)))
    assert (layer.bound, layer.utilisation) == ("", None)
    (odd,) = inspect_layers(workload, [block], "int3", None)
    assert odd.macs_per_byte is None


def test_without_a_target_layers_are_sorted_by_macs():
    net = nn.Sequential(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 32, 1))
    workload = trace(net, torch.zeros(1, 8, 10, 10))
    layers = inspect_layers(workload, counted_layers(workload), "float32", None)
    assert [layer.name for layer in layers] == ["1", "0"]
    assert layers[0].share == pytest.approx(0.8)
