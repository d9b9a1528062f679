from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chipfit.graph import trace
from chipfit.graph.channels import channel_groups
from chipfit.methods.auto_blocks import SOLVED, replacements
from chipfit.methods.joint_space import BLOCK, JointSpace
from chipfit.methods.width_table import thinned_widths
from chipfit.nets import create
from chipfit.rewrite.replay import replay
from chipfit.space.blocks import KEEP
from chipfit.space.replacements import Pool, replacement_space
from chipfit.targets import create as create_target

NETWORKS = {
    "tiny_mobilenet_v2": lambda: create("tiny_mobilenet_v2", input_shape=(1, 3, 16, 16)),
    "resnet18": lambda: create("resnet18", input_shape=(1, 3, 32, 32), num_classes=10),
}


def joint_of(net, example, kinds=("skip", "conv", "inverted")):
    groups = channel_groups(net, example)
    if "separable" in kinds:
        asked = SimpleNamespace(net=net, example=example, keep=(), target=create_target("analytic"))
        blocks = replacements(asked, kinds)
    else:
        blocks = replacement_space(net, example, Pool(kinds, kernels=(3,)))
    widths = thinned_widths(groups, 8, 3)
    return groups, blocks, JointSpace(net, example, groups, widths, blocks)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("tiny_mobilenet_v2", ("skip", "conv", "inverted")),
        ("tiny_mobilenet_v2", SOLVED),
        ("resnet18", ("skip", "conv", "inverted")),
        ("resnet18", ("separable",)),
    ],
)
def test_workloads_are_those_of_the_networks_that_the_edits_make(name, kinds):
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    example = torch.rand(1, 3, *((16, 16) if name == "tiny_mobilenet_v2" else (32, 32)))
    groups, blocks, joint = joint_of(net, example, kinds)
    assert joint.blocks is not None
    rng = np.random.default_rng(0)
    replaced = 0
    for _ in range(6):
        chosen = {c.name: c.options[int(rng.integers(len(c.options)))] for c in joint.space}
        kept = {
            g.name: sorted(rng.permutation(g.channels)[: chosen[g.name]].tolist())
            for g in groups
            if g.name in chosen
        }
        made = replay(net, joint.edits(chosen, kept)).eval()
        assert made(example).shape == net(example).shape
        real, predicted = trace(made, example), joint.workload(chosen)
        assert [n.op for n in predicted.nodes] == [n.op for n in real.nodes]
        replaced += len(joint.operations(chosen))
    assert replaced >= 6


def test_the_network_as_it_is_has_the_last_option_of_every_choice():
    net = NETWORKS["tiny_mobilenet_v2"]().eval()
    example = torch.rand(1, 3, 16, 16)
    groups, _, joint = joint_of(net, example)
    last = {c.name: c.options[-1] for c in joint.space}
    assert all(v == KEEP for name, v in last.items() if name.startswith(BLOCK))
    assert joint.edits(last, {g.name: range(g.channels) for g in groups if not g.frozen}) == ()
    assert joint.workload(last).macs == trace(net, example).macs


class Tied(torch.nn.Module):
    """A block in the middle without a shortcut: skipping it ties the widths before and behind."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 1)
        self.block = torch.nn.Sequential(
            torch.nn.Conv2d(16, 24, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(24, 16, 1)
        )
        self.last = torch.nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return self.last(self.block(self.first(x))).mean((2, 3))


def test_replacements_that_couple_other_channels_are_left_out():
    net, example = Tied().eval(), torch.rand(1, 3, 8, 8)
    groups = channel_groups(net, example)
    blocks = replacement_space(net, example, Pool(("skip", "conv"), kernels=(3,)), ["block"])
    joint = JointSpace(net, example, groups, thinned_widths(groups, 8, 3), blocks)
    (choice,) = joint.blocks
    assert [o.name for o in choice.operations] == ["conv_k1", "conv_k3", KEEP]


def test_inside_blocks_with_separable_convolutions_widths_are_still_chosen():
    net = NETWORKS["resnet18"]().eval()
    example = torch.rand(1, 3, 32, 32)
    groups, _, joint = joint_of(net, example, ("separable",))
    chosen = {c.name: c.options[0] for c in joint.space}
    assert {chosen[BLOCK + c.name] for c in joint.blocks} == {"separable"}
    assert len(joint.blocks) == 8
    assert [g.name for g in joint.groups(chosen)] == [g.name for g in groups]
    kept = {g.name: range(chosen[g.name]) for g in groups if not g.frozen}
    made = replay(net, joint.edits(chosen, kept))
    assert made.layer1[0].conv1.pointwise.out_channels == chosen["layer1.0.conv1"]
    assert made.layer1[0].conv2.depthwise.in_channels == chosen["layer1.0.conv1"]
