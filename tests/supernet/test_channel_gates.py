# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from chipfit.graph.channels import channel_groups
from chipfit.nets import create
from chipfit.rewrite.edits import edits_for
from chipfit.rewrite.slice import side_sizes, slice_channels
from chipfit.supernet.channel_gates import ChannelGates


@pytest.fixture
def gated():
    torch.manual_seed(0)
    net = create("tiny_mobilenet_v2", input_shape=(1, 1, 8, 8)).eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    groups = [g for g in channel_groups(net, torch.zeros(net.input_shape)) if not g.frozen]
    net = net.double()
    return net, groups, ChannelGates(net, groups).eval()


X = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_open_gates_change_nothing(gated):
    net, groups, gates = gated
    assert torch.equal(gates(X), net(X))
    assert [len(g) for g in gates.gates] == [group.channels for group in groups]
    assert {id(p) for p in gates.weights()}.isdisjoint(id(g) for g in gates.gates)


def test_merged_gates_compute_the_same_without_them(gated):
    net, _, gates = gated
    for gate in gates.gates:
        nn.init.uniform_(gate, -1.5, 1.5)
    merged = gates.merged().eval()
    torch.testing.assert_close(merged(X), gates(X), rtol=1e-10, atol=1e-10)
    assert merged.state_dict().keys() == net.state_dict().keys()
    assert not any(m._forward_hooks for m in merged.modules())
    assert all(p.requires_grad for p in merged.parameters())
    assert not torch.allclose(merged(X), net(X), rtol=0.01)


def test_closed_channels_can_be_sliced_without_a_change(gated):
    net, groups, gates = gated
    kept = {}
    with torch.no_grad():
        for group, gate in zip(groups, gates.gates, strict=True):
            nn.init.uniform_(gate, 0.2, 1.5)
            gate[1::3] = 0.0
            kept[group.name] = [c for c in range(group.channels) if c % 3 != 1]
    sliced = slice_channels(gates.merged(), edits_for(groups, kept, side_sizes(net))).eval()
    torch.testing.assert_close(sliced(X), gates(X), rtol=1e-10, atol=1e-10)


def test_every_gate_gets_a_gradient_and_gated_scales_none(gated):
    _, _, gates = gated
    gates.train()(X).square().sum().backward()
    assert all(gate.grad.abs().min() > 0 for gate in gates.gates)
    norms = [m for m in gates.net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.weight.grad is None for norm in norms)


def test_a_proximal_step_shrinks_towards_zero_and_stops_there(gated):
    _, groups, gates = gated
    with torch.no_grad():
        gates.gates[0][:3] = torch.tensor([0.3, -0.3, 0.05])
    before = gates.gates[1].clone()
    gates.shrink([0.1] + [0.0] * (len(groups) - 1))
    torch.testing.assert_close(
        gates.gates[0][:3].detach(), torch.tensor([0.2, -0.2, 0.0], dtype=torch.float64)
    )
    assert torch.equal(gates.gates[1], before)


def test_layers_without_batch_norm_are_gated_themselves():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(),
                        nn.Linear(64, 2))  # fmt: skip
    groups = [g for g in channel_groups(net, torch.zeros(1, 1, 8, 8)) if not g.frozen]
    net = net.double()
    gates = ChannelGates(net, groups)
    assert [g.channels for g in groups] == [8, 4]
    with torch.no_grad():
        gates.gates[0][2:5] = 0.0
        gates.gates[1][0] = 0.0
    kept = {groups[0].name: [0, 1, 5, 6, 7], groups[1].name: [1, 2, 3]}
    sliced = slice_channels(gates.merged(), edits_for(groups, kept, side_sizes(net)))
    torch.testing.assert_close(sliced(X), gates(X), rtol=1e-10, atol=1e-10)
