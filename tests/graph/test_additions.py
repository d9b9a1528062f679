import pytest
import torch
from torch import nn

from chipfit.graph.additions import Summands, additions_of
from chipfit.nets import create


class Sum(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.stem = how, nn.Conv2d(3, 4, 1)
        self.layer, self.norm, self.late = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        y = self.layer(x)
        if self.how == "plain":
            return x + y
        if self.how == "in place":
            y += x
            return y
        if self.how == "function":
            return torch.add(x, y)
        if self.how == "norm":
            return self.norm(y) + x
        if self.how == "changed shortcut":
            x.mul_(2)
            return self.norm(y) + x
        if self.how == "changed behind the layer":
            y = self.late(y)
            return x.mul_(2) + y
        if self.how == "scaled":
            return torch.add(x, y, alpha=2)
        if self.how == "activated":
            return x + torch.relu(y)
        if self.how == "activated in place":
            return x + torch.relu_(y)
        if self.how == "broadcast":
            return x.mean((2, 3), keepdim=True) + y
        if self.how == "number":
            return y + 1.0
        if self.how == "input":
            return torch.cat([x, y]) + 0.5
        return y + self.late(x)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("plain", ["layer"]),
        ("in place", ["layer"]),
        ("function", ["layer"]),
        ("norm", ["layer"]),
        ("changed shortcut", []),
        ("changed behind the layer", []),
        ("scaled", []),
        ("activated", []),
        ("activated in place", []),
        ("broadcast", []),
        ("number", []),
        ("input", []),
        ("two", ["late"]),
    ],
)
def test_summands_that_are_made_before_a_layer_are_found(how, found):
    net = Sum(how).eval()
    norms = {"layer": "norm"} if "norm" in how or "shortcut" in how else {}
    calls = additions_of(net, norms, ["layer", "late"], torch.rand(2, 3, 5, 5))
    assert sorted(calls) == found


def test_what_is_taken_while_the_network_runs_is_the_other_summand():
    net, x = Sum("norm").eval(), torch.rand(2, 3, 5, 5)
    summands = Summands(additions_of(net, {"layer": "norm"}, ["layer"], x))
    taken = []

    def look(module, args):
        with summands.aside():
            args[0] * 2  # is no call of the network's
            taken.append(summands.take("layer"))
            assert summands.take("late") is None

    net.layer.register_forward_pre_hook(look)
    with summands:
        net(x)
    assert torch.equal(taken[0], net.stem(x))


def test_two_layers_that_are_added_to_the_same_both_take_it():
    class Both(Sum):
        def forward(self, x):
            x = self.stem(x)
            return torch.cat([x + self.layer(x), x + self.late(x)])

    net, x, taken = Both("").eval(), torch.rand(2, 3, 5, 5), []
    summands = Summands(additions_of(net, {}, ["layer", "late"], x))
    for name in ("layer", "late"):
        net.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: taken.append(summands.take(name))
        )
    with summands:
        net(x)
    assert torch.equal(taken[0], taken[1])
    assert torch.equal(taken[0], net.stem(x))


def test_the_ends_of_a_mobilenets_residual_branches_are_found():
    net = create("tiny_mobilenet_v2", input_shape=(1, 3, 32, 32)).eval()
    layers = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    norms = {}
    for name in layers:
        *parent, number = name.split(".")
        behind = ".".join([*parent, str(int(number) + 1)])
        if isinstance(dict(net.named_modules()).get(behind), nn.BatchNorm2d):
            norms[name] = behind
    found = additions_of(net, norms, layers, torch.rand(2, 3, 32, 32))
    blocks = [name for name, module in net.named_modules() if getattr(module, "residual", False)]
    assert len(found) == len(blocks) > 0
    assert all(any(layer.startswith(block + ".") for block in blocks) for layer in found)
