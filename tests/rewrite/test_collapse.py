# SPDX-License-Identifier: Apache-2.0
"""Collapsing whole networks: equality, what becomes one layer, and what must not."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput, ParityError
from chipfit.graph.capture import trace
from chipfit.rewrite import collapse, collapse_steps, fold_batchnorm

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.collapse_graphs import Scale, Sum, random_network, settle

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.AvgPool2d, nn.modules.batchnorm._BatchNorm)


def layers(net, kind=LAYERS):
    return [name for name, module in net.named_modules() if isinstance(module, kind)]


def calls(net):
    return [node for node in net.graph.nodes if node.op.startswith("call")]


def error(net, other, x):
    with torch.no_grad():
        expected, found = net(x.clone()), other(x.clone())
    assert expected.shape == found.shape
    return float((expected - found).abs().max() / expected.abs().max())


def collapsed(net, shape, **options):
    """Collapse in float64, check equality, and return the result."""
    settle(net)
    net = net.double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    result = collapse(net, x, **options)
    assert error(net, result, x) < 1e-10
    return result


def conv(i, o, k=1, s=1, p=None, bias=True, **options):
    return nn.Conv2d(i, o, k, s, k // 2 if p is None else p, bias=bias, **options)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_random_networks_stay_equal(seed, dtype, bound):
    net, shape = random_network(seed)
    net = net.to(dtype)
    x = torch.randn(shape, dtype=dtype)
    steps = collapse_steps(net, x)
    assert error(net, steps.net, x) < bound
    assert all(step.after <= step.before for step in steps.steps)
    assert len(layers(steps.net)) <= len(layers(net))


def test_a_random_network_stays_equal_on_another_size_of_image():
    for seed in range(10):
        net, shape = random_network(seed)
        net = net.double()
        result = collapse(net, torch.randn(shape, dtype=torch.float64))
        larger = torch.randn(1, shape[1], shape[2] + 5, shape[3] + 2, dtype=torch.float64)
        assert error(net, result, larger) < 1e-10


# What becomes one convolution.


def rep_vgg(c=6):
    branches = [nn.Sequential(conv(c, c, k, bias=False), nn.BatchNorm2d(c)) for k in (3, 1)]
    return Sum([*branches, nn.BatchNorm2d(c)], "iadd")


def diverse_branch_block(c=6):
    def norm(*modules):
        return nn.Sequential(*modules, nn.BatchNorm2d(c))

    once = norm(conv(c, c, 3, bias=False))
    twice = nn.Sequential(
        nn.ZeroPad2d(1), norm(conv(c, c, 1, bias=False)), norm(conv(c, c, 3, p=0, bias=False))
    )
    pooled = nn.Sequential(
        nn.ZeroPad2d(1), norm(conv(c, c, 1, bias=False)), norm(nn.AvgPool2d(3, 1))
    )
    return Sum([once, norm(conv(c, c, 1, bias=False)), twice, pooled], "add")


def sesr_block(c=6):
    return Sum([nn.Identity(), nn.Sequential(conv(c, 64, 3, bias=False), conv(64, c))], "add")


def acnet_block(c=6):
    shapes = [((3, 3), (1, 1)), ((1, 3), (0, 1)), ((3, 1), (1, 0))]
    return Sum([nn.Sequential(nn.Conv2d(c, c, k, padding=p, bias=False), nn.BatchNorm2d(c))
                for k, p in shapes], "add")  # fmt: skip


@pytest.mark.parametrize(
    "block", [rep_vgg, diverse_branch_block, sesr_block, acnet_block], ids=lambda f: f.__name__
)
def test_a_block_of_linear_branches_becomes_one_convolution(block):
    net = collapsed(block(), (2, 6, 9, 11))
    assert len(calls(net)) == 1
    (name,) = layers(net)
    assert net.get_submodule(name).kernel_size == (3, 3)


SEQUENCES = {
    "1x1, kxk, no bias between": [conv(4, 8, bias=False), conv(8, 3, 3)],
    "1x1 with bias behind the padding": [nn.ZeroPad2d(1), conv(4, 8), conv(8, 3, 3, p=0)],
    "kxk, 1x1": [conv(4, 32, 3), conv(32, 3)],
    "kxk stride 2, 1x1": [conv(4, 32, 3, 2), conv(32, 3)],
    "1x1, kxk stride 2": [conv(4, 8, bias=False), conv(8, 3, 3, 2)],
    "kxk, kxk": [conv(4, 64, 3), conv(64, 2, 3, p=0)],
    "batch norm before": [nn.BatchNorm2d(4), conv(4, 3, 3, p=0)],
    "depthwise, 1x1": [conv(4, 4, 3, groups=4), nn.BatchNorm2d(4), conv(4, 1)],
    "dilated": [conv(4, 32, 3, p=2, dilation=2), conv(32, 3)],
    "layer scale": [conv(4, 3, 3), Scale(3, "gamma")],
    "shift": [conv(4, 3, 3), nn.BatchNorm2d(3), Scale(3, "shift"), nn.Dropout(0.5)],
    "identity": [nn.Identity(), nn.ZeroPad2d(0), conv(4, 3, 3), nn.Identity()],
    "padding": [nn.ZeroPad2d((1, 1, 2, 2)), conv(4, 3, 3)],
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("shape", [(2, 4, 9, 10), (1, 4, 8, 11)])
def test_a_sequence_becomes_one_convolution(name, shape):
    net = nn.Sequential(*copy.deepcopy(SEQUENCES[name]))
    assert len(calls(collapsed(net, shape))) == 1


def test_linear_layers_and_their_batch_norm():
    net = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Linear(32, 3), nn.Dropout())
    result = collapsed(net, (4, 8))
    assert layers(result) == layers(result, nn.Linear) and len(calls(result)) == 1


def test_linear_layers_over_the_last_axis():
    assert len(calls(collapsed(nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 3)), (2, 5, 8)))) == 1


def test_other_numbers_of_axes():
    one = nn.Sequential(nn.Conv1d(3, 16, 3, padding=1), nn.BatchNorm1d(16), nn.Conv1d(16, 2, 1))
    three = nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.Conv3d(8, 2, 1))
    assert len(calls(collapsed(one, (2, 3, 9)))) == 1
    assert len(calls(collapsed(three, (1, 2, 5, 6, 7)))) == 1


def test_branches_that_are_concatenated_become_one_convolution():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = conv(4, 2, 3), conv(4, 5, 3)

        def forward(self, x):
            return F.relu(torch.cat([self.left(x), self.right(x)], dim=1))

    assert len(layers(collapsed(Both(), (1, 4, 7, 7)))) == 1


def test_asymmetric_padding_stays_what_it_is():
    net = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)), conv(4, 16, 3, 2, p=0), nn.BatchNorm2d(16), conv(16, 3)
    )
    result = collapsed(net, (1, 4, 8, 8))
    assert layers(result, nn.ZeroPad2d) and len(layers(result)) == 1


# What must not become one.


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = conv(4, 32), conv(32, 3)

    def forward(self, x):
        y = self.first(x)
        return self.second(y), F.relu(y)


class RandomDropout(nn.Sequential):
    def forward(self, x):
        return self[1](F.dropout(self[0](x), 0.5, training=True))


class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = conv(4, 32), conv(32, 3)

    def forward(self, x):
        y = F.relu(x)
        z = self.first(y)
        y.mul_(2.0)
        return self.second(z) + y.mean()


KEPT = {
    "activation": nn.Sequential(conv(4, 32), nn.ReLU(), conv(32, 3)),
    "padding behind a bias": nn.Sequential(conv(4, 32), conv(32, 3, 3)),
    "padding behind a kernel": nn.Sequential(conv(4, 32, 3, bias=False), conv(32, 3, 3)),
    "batch norm before padding": nn.Sequential(nn.BatchNorm2d(4), conv(4, 3, 3)),
    "reflected padding": nn.Sequential(conv(4, 32), conv(32, 3, 3, padding_mode="reflect")),
    "mean without the padding": nn.Sequential(
        nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(4, 1, 3, p=0)
    ),
    "rounded-up pooling": nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), conv(4, 1, 3, p=0)),
    "statistics of the batch": nn.Sequential(conv(4, 3), nn.BatchNorm2d(3, track_running_stats=False)),
    "written in between": Written(),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_cannot_be_exact_is_left_alone(name):
    net = copy.deepcopy(KEPT[name])
    before = len(layers(net))
    settle_with_shift(net)
    net = net.double().eval()
    x = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    steps = collapse_steps(net, x)
    assert error(net, steps.net, x) < 1e-10
    assert steps.steps == () and len(layers(steps.net)) == before


def settle_with_shift(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.fill_(0.5)


def test_a_tensor_with_a_second_reader_is_kept():
    net = TwoReaders().eval()
    x = torch.randn(1, 4, 5, 5)
    assert collapse_steps(net, x).steps == ()


def test_dropout_that_is_always_on_is_kept():
    net = RandomDropout(conv(4, 32), conv(32, 3)).eval()
    result = collapse(net, torch.randn(1, 4, 5, 5))
    assert len(layers(result)) == 2
    x = torch.randn(1, 4, 5, 5)
    assert not torch.equal(result(x), result(x))


def test_a_network_that_keeps_state_between_calls_is_refused():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(4, 3)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.conv(x) * self.calls

    with pytest.raises(ParityError, match="state"):
        collapse(Counter(), torch.randn(1, 4, 5, 5))


def test_the_meta_device_is_refused():
    with torch.device("meta"):
        net = conv(3, 4)
    with pytest.raises(BadInput, match="meta"):
        collapse(net, torch.randn(1, 3, 4, 4))


# Whole networks, names, modes, costs.


def test_efficientnet_lite0_loses_its_batch_norms_and_nothing_else():
    net = cf.nets.create("efficientnet_lite0", num_classes=10)
    settle(net)
    net.eval()
    x = torch.randn(1, 3, 64, 64)
    for rewritten in (fold_batchnorm(net, x), collapse(net, x)):
        assert error(net, rewritten, x) < 1e-5
        assert not layers(rewritten, nn.modules.batchnorm._BatchNorm)
        assert layers(rewritten, nn.Conv2d) == layers(net, nn.Conv2d)
        assert trace(rewritten, x).key == trace(net, x).key


def test_fold_batchnorm_leaves_branches_alone():
    net = rep_vgg().eval()
    result = fold_batchnorm(net, torch.randn(1, 6, 7, 7))
    assert len(layers(result, nn.Conv2d)) == 2 and len(layers(result)) == 3


def test_repvgg_a0_equals_its_own_merge():
    net = cf.nets.create("repvgg_a0", num_classes=10, deploy=False)
    settle(net)
    net.eval()
    x = torch.randn(1, 3, 32, 32)
    result = collapse(net, x)
    assert error(net, result, x) < 1e-5
    assert trace(result, x).key == trace(copy.deepcopy(net).merge(), x).key


def test_the_original_and_its_mode_stay_and_parameters_keep_their_names():
    net = nn.Sequential(
        conv(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(5, 2)
    ).train()
    settle(net)
    state = copy.deepcopy(net.state_dict())
    result = collapse(net, torch.randn(2, 3, 5, 5))
    assert net.training and all(m.training for m in result.modules())
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in state.items())
    assert sorted(result.state_dict()) == ["0.bias", "0.weight", "3.bias", "3.weight"]
    assert result(torch.randn(2, 3, 5, 5)).requires_grad


def test_a_part_with_data_dependent_control_flow_is_collapsed_inside():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(conv(4, 32), conv(32, 4))

        def forward(self, x):
            return self.body(x) if x.sum() > -1e9 else x

    for net in (nn.Sequential(conv(3, 32), conv(32, 4), Gate()), Gate()):
        net = net.double().eval()
        x = torch.randn(1, 3 if len(layers(net)) == 4 else 4, 5, 5, dtype=torch.float64)
        result = collapse_steps(net, x)
        assert error(net, result.net, x) < 1e-10
        assert len(layers(result.net)) == len(layers(net)) // 2
        assert result.steps[-1].after == trace(result.net, x).macs


def test_a_module_that_is_used_twice_stays_right():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.norm = conv(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(self.body(F.relu(self.body(x))))

    assert len(layers(collapsed(Twice(), (1, 4, 6, 6)), nn.Conv2d)) == 2


def test_a_rewrite_is_kept_only_where_the_cost_falls():
    net = nn.Sequential(conv(8, 8, 3, groups=8, bias=False), conv(8, 8)).eval()
    x = torch.randn(1, 8, 6, 6)
    assert collapse_steps(net, x).steps == ()  # 9 * 8 * 8 MACs instead of 9 * 8 + 8 * 8
    steps = collapse_steps(net, x, cost=lambda n: float(len(trace(n, x)))).steps
    assert [(s.kind, s.before, s.after) for s in steps] == [("sequence", 2.0, 1.0)]
    assert steps[0].modules == ("0", "1")
    dearer = collapse_steps(net, x, cost=lambda n: float(trace(n, x).macs))
    assert dearer.steps == ()


def test_the_cost_sees_networks_that_compute_the_same():
    net = nn.Sequential(rep_vgg(), nn.ReLU(), conv(6, 32), conv(32, 2)).eval()
    settle(net)
    x = torch.randn(1, 6, 8, 8)
    seen = []

    def cost(candidate):
        seen.append(error(net, candidate, x))
        return float(trace(candidate, x).macs)

    steps = collapse_steps(net, x, cost)
    assert len(seen) > 4 and max(seen) < 1e-5
    assert steps.steps[-1].after == trace(steps.net, x).macs == 64 * (6 * 6 * 9 + 6 * 2)


def test_the_steps_without_a_cost_are_in_macs_of_the_whole_network():
    net = nn.Sequential(rep_vgg(), nn.ReLU(), conv(6, 32), conv(32, 2)).eval()
    x = torch.randn(1, 6, 8, 8)
    steps = collapse_steps(net, x)
    assert steps.steps[0].before == trace(net, x).macs
    assert steps.steps[-1].after == trace(steps.net, x).macs


def test_networks_with_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Sequential(conv(3, 32), conv(32, 2)), conv(3, 2, 3)

        def forward(self, x, y):
            return {"sum": self.a(x) + self.b(y), "b": self.b(y)}

    net = Two().eval()
    example = {"y": torch.randn(1, 3, 6, 6), "x": torch.randn(1, 3, 6, 6)}
    result = collapse(net, example)
    assert len(layers(result)) == 2
    assert torch.allclose(result(**example)["sum"], net(**example)["sum"], atol=1e-5)


# Borders that no single convolution has.


def bottleneck(i=4, o=5, hidden=24, kernel=3, stride=1):
    """An inverted bottleneck without inner activations, its depthwise convolution padding zeros."""
    middle = conv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
    return nn.Sequential(
        conv(i, hidden, bias=False), nn.BatchNorm2d(hidden), middle, nn.BatchNorm2d(hidden),
        conv(hidden, o, bias=False), nn.BatchNorm2d(o),
    )  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [11, 14])
def test_for_one_size_of_image_the_border_is_added_and_exact(stride, kernel, size):
    shape = (2, 4, size, size + 1)
    net = collapsed(bottleneck(kernel=kernel, stride=stride), shape, fixed_size=True)
    assert len(layers(net)) == 1 and len(calls(net)) == 2
    (offset,) = [p for name, p in net.named_parameters() if name.endswith("offset")]
    rim = offset[0, :, kernel // 2 : -(kernel // 2), kernel // 2 : -(kernel // 2)]
    assert rim.abs().max() < 1e-12 < offset.abs().max()


def test_a_shortcut_around_a_bottleneck_joins_it():
    net = Sum([nn.Identity(), bottleneck(4, 4)], "add")
    assert len(layers(collapsed(net, (1, 4, 8, 8), fixed_size=True))) == 1


def test_without_leave_to_fix_the_size_the_bottleneck_stays():
    net = bottleneck()
    assert len(layers(collapsed(net, (1, 4, 8, 8)), nn.Conv2d)) == 3


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_stay_equal_where_borders_are_added(seed):
    net, shape = random_network(seed)
    x = torch.randn(shape, dtype=torch.float64)
    result = collapse(net.double(), x, fixed_size=True)
    assert error(net, result, x) < 1e-10


def test_a_network_without_parameters_keeps_the_type_of_its_statistics():
    net = nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.AvgPool2d(2), nn.AvgPool2d(2))
    result = collapsed(net, (1, 4, 8, 8), cost=lambda n: float(len(layers(n))))
    assert error(net, result, torch.randn(1, 4, 8, 8, dtype=torch.float64)) < 1e-10
