import math

import pytest
import torch
from networks import ALL, randomised
from torch import nn
from torch.nn import functional as F

from chipfit.errors import BadInput
from chipfit.graph import capture, trace
from chipfit.graph.execute import WorkloadModule
from chipfit.graph.workload import Workload
from chipfit.nets import create


@pytest.mark.parametrize("name", ALL)
def test_program_computes_what_the_network_computes(name):
    torch.manual_seed(0)
    net = randomised(ALL[name]())
    x = torch.randn(1, 3, 16, 16)
    program = capture(net, x)
    assert not [n.name for n in program.workload.nodes if n.op.kind == "unsupported"]
    with torch.no_grad():
        expected = net(x)
        torch.testing.assert_close(WorkloadModule(program)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_program_takes_batches(name):
    torch.manual_seed(0)
    net = randomised(ALL[name]())
    program = capture(net, torch.randn(1, 3, 16, 16))
    batch = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(WorkloadModule(program)(batch), net(batch), rtol=1e-4, atol=1e-5)


def test_convolution_batch_norm_and_activation_are_one_operator():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 1))
    workload = trace(net, torch.zeros(1, 3, 8, 8))
    assert [n.op.kind for n in workload.nodes] == ["conv2d", "conv2d"]
    assert workload.nodes[0].op.activation == "relu6"
    assert workload.nodes[0].absorbed == ("1", "2")
    assert [n.name for n in workload.nodes] == ["0", "3"]


def test_a_tensor_that_leaves_the_network_is_not_fused_away():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y, F.relu(y)

    workload = trace(Two(), torch.zeros(1, 3, 4, 4))
    assert [n.op.kind for n in workload.nodes] == ["conv2d", "activation"]
    assert workload.nodes[0].op.activation == "none"
    assert len(workload.outputs) == 2


def test_macs_equal_a_hand_count():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 12, (1, 5), groups=4), nn.Flatten(), nn.Linear(12 * 8 * 4, 10),
    )  # fmt: skip
    workload = trace(net, torch.zeros(1, 3, 16, 16))
    by_hand = 8 * 64 * 3 * 9 + 8 * 64 * 9 + 12 * 8 * 4 * 2 * 5 + 12 * 8 * 4 * 10
    assert workload.macs == by_hand


def _matmul_handler(inputs, outputs):
    a, b = (i.type().sizes() for i in inputs[:2])
    return math.prod(a) * b[-1]


@pytest.mark.parametrize("name", [*ALL, "mobilenet_v2", "resnet18"])
def test_macs_equal_an_independent_counter(name):
    fvcore = pytest.importorskip("fvcore.nn")
    if name in ALL:
        net, x = ALL[name]().eval(), torch.zeros(1, 3, 16, 16)
    else:
        net, x = create(name, input_shape=(1, 3, 64, 64)).eval(), torch.zeros(1, 3, 64, 64)
    counter = fvcore.FlopCountAnalysis(net, x).unsupported_ops_warnings(False)
    counter.uncalled_modules_warnings(False)
    counts = counter.by_operator()
    counted = sum(counts[k] for k in ("conv", "linear", "matmul", "bmm", "addmm"))
    workload = trace(net, x)
    products = sum(n.op.macs for n in workload.nodes if n.op.kind == "matmul")
    # The peer looks neither inside scaled_dot_product_attention nor at padding="same".
    same = sum(n.op.macs for n in workload.nodes if n.name == "wide")
    assert workload.macs - products - same == counted


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("mobilenet_v2", 300_774_272, 3_487_816), ("efficientnet_lite0", 385_187_552, None)],
)
def test_published_macs(name, macs, parameters):
    workload = trace(create(name), torch.zeros(1, 3, 224, 224))
    assert workload.macs == macs
    if parameters is not None:  # with batch norm folded
        assert workload.parameter_count == parameters


def test_an_unknown_operator_is_named_with_its_place():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return torch.fft.fft2(self.conv(x)).abs()

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Odd()

        def forward(self, x):
            return self.inner(x).mean((2, 3))

    workload = trace(Outer(), torch.zeros(1, 3, 4, 4))
    odd = [n for n in workload.nodes if n.op.kind == "unsupported"]
    assert [n.op["aten"].partition(":")[0] for n in odd] == ["fft_fft2", "abs"]
    assert all(n.name.startswith("inner") for n in odd)


def test_control_flow_and_in_place_calls():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(4))

        def forward(self, x):
            y = x.clone()
            for i, conv in enumerate(self.convs):
                y += conv(y) if i % 2 else F.relu_(conv(y))
            return y.mul_(2) if y.shape[1] == 3 else y

    net, x = Branching(), torch.randn(1, 3, 5, 5)
    program = capture(net, x)
    with torch.no_grad():
        torch.testing.assert_close(WorkloadModule(program)(x), net(x))
    assert sum(n.op.kind == "conv2d" for n in program.workload.nodes) == 4


def test_a_network_may_look_at_its_data():
    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x) if x.sum().item() > -1 else x

    assert len(trace(Peeking(), torch.ones(1, 3, 4, 4))) == 1


def test_mode_is_restored_and_wrong_shapes_are_explained():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net.train()
    net[1].eval()
    trace(net, torch.zeros(1, 3, 4, 4))
    assert net[0].training
    assert not net[1].training
    with pytest.raises(BadInput, match=r"1, 5, 4, 4"):
        trace(net, torch.zeros(1, 5, 4, 4))


def test_shared_module_is_charged_each_time():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    workload = trace(nn.Sequential(conv, nn.ReLU(), conv), torch.zeros(1, 4, 8, 8))
    assert workload.macs == 2 * 4 * 4 * 9 * 64
    assert len({n.name for n in workload.nodes}) == 2


def test_lifetimes_and_peak_memory_of_a_residual_block():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x):
            return x + self.b(self.a(x))

    workload: Workload = trace(Block(), torch.zeros(1, 4, 2, 2))
    assert workload.lifetimes == {"input": (0, 2), "a": (0, 1), "b": (1, 2), "add": (2, 2)}
    # While b runs: the input (16), a (64) and b (16).
    assert workload.peak_activation_elements() == 96
