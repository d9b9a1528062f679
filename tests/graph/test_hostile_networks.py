# SPDX-License-Identifier: Apache-2.0
"""Networks that break tracers: each works, with its counts checked, or gives one clear error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from chipfit.errors import BadInput, ChipfitError
from chipfit.graph.capture import capture, trace
from chipfit.graph.channels import channel_groups
from chipfit.graph.execute import WorkloadModule
from chipfit.graph.run import output_tensors

IMAGE = (1, 3, 8, 8)
CONV_MACS = 3 * 4 * 9 * 64


class Net(nn.Module):
    """A convolution and whatever a test does with it."""

    def __init__(self, forward: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.own = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.own(self, *args, **kwargs)


def same(net: nn.Module, *inputs: Any, tolerance: float = 1e-5) -> Any:
    """Check that the traced operators compute what the network computes; return the workload."""
    net.eval()
    program = capture(net, inputs)
    assert not [n.op["aten"] for n in program.workload.nodes if n.op.kind == "unsupported"]
    with torch.no_grad():
        mine = output_tensors(WorkloadModule(program)(*inputs))
        theirs = output_tensors(net(*inputs))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=tolerance, atol=tolerance)
    return program.workload


def unknown(workload: Any) -> list[str]:
    return [n.op["aten"] for n in workload.nodes if n.op.kind == "unsupported"]


@pytest.mark.parametrize("net", [nn.Sequential(), nn.Identity(), nn.Sequential(nn.Dropout())])
def test_networks_that_compute_nothing(net):
    load = trace(net, torch.randn(IMAGE))
    assert (len(load), load.macs, load.parameter_count) == (0, 0, 0)
    assert load.peak_activation_elements() == 0
    assert channel_groups(net, torch.randn(IMAGE)) == []


def test_a_network_without_parameters():
    load = same(nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()), torch.randn(IMAGE))
    assert (load.macs, load.parameter_count) == (0, 0)


def test_data_dependent_loops_follow_the_example():
    def forward(self, x):
        for _ in range(int(x.abs().max()) + 1):
            x = F.relu(self.conv(x))[:, :3]
        return x if x.mean() > -1 else -x

    assert same(Net(forward), torch.full(IMAGE, 2.0)).macs == 3 * CONV_MACS


def test_two_inputs():
    load = same(Net(lambda s, x, y: s.conv(x) * y), torch.randn(IMAGE), torch.randn(1, 4, 1, 1))
    assert load.inputs == ("input", "input_1")


def test_nested_and_keyword_inputs():
    net = Net(lambda s, batch: s.conv(batch["image"]) + batch["more"][0])
    batch = {"image": torch.randn(IMAGE), "more": [torch.randn(1, 4, 8, 8)]}
    assert len(trace(net, [batch]).inputs) == 2
    keyword = Net(lambda s, *, image, scale: s.conv(image) * scale)
    load = trace(keyword, {"image": torch.randn(IMAGE), "scale": torch.ones(1)})
    assert load.macs == CONV_MACS


def test_a_missing_argument_is_named():
    class Two(Net):
        def forward(self, image, mask):
            return self.conv(image) * mask

    with pytest.raises(BadInput, match="mask") as caught:
        trace(Two(), torch.randn(IMAGE))
    assert "image, mask" in caught.value.hint


@dataclass
class Found:
    boxes: torch.Tensor
    extra: Any


OUTPUTS = {
    "dict": lambda s, x: {"a": s.conv(x), "b": (x, [s.conv(x)])},
    "tuple": lambda s, x: (s.conv(x), None, x * 2),
    "list": lambda s, x: [s.conv(x), 3],
    "data class": lambda s, x: Found(s.conv(x), {"deep": x + 1}),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_every_form(kind):
    net, x = Net(OUTPUTS[kind]), torch.randn(IMAGE)
    load = same(net, x)
    assert len(load.outputs) == len(set(output_tensors(net(x))))


@pytest.mark.parametrize("result", [None, 3, "text", [], {"a": None}])
def test_no_tensor_is_returned(result):
    with pytest.raises(BadInput, match="holds no tensor"):
        trace(Net(lambda s, x: result), torch.randn(IMAGE))


@pytest.mark.parametrize(
    "forward",
    [lambda s, x: torch.ones(3), lambda s, x: torch.from_numpy(s.conv(x).numpy() * 2)],
    ids=["constant", "numpy"],
)
def test_output_without_input(forward):
    with pytest.raises(BadInput, match="does not depend on its input"):
        trace(Net(forward), torch.randn(IMAGE))


def test_shared_modules_and_parameters():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(self.a(x)))

    assert same(Shared(), torch.randn(1, 4)).macs == 48


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value):
    net = Net(lambda s, x: F.relu(s.conv(x)))
    nn.init.constant_(net.conv.weight, value)
    assert trace(net, torch.randn(IMAGE)).macs == CONV_MACS


def test_layers_without_channels():
    with pytest.warns(UserWarning, match="zero-element"):
        net = nn.Sequential(nn.Conv2d(3, 0, 1), nn.ReLU())
    with pytest.raises(BadInput, match="at least 1"):
        trace(net, torch.randn(IMAGE))
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(8, 0)
    with pytest.raises(BadInput, match="holds nothing"):
        trace(empty, torch.randn(IMAGE))


class Failing(Exception):
    pass


@pytest.mark.parametrize(
    "error", [KeyError("k"), AttributeError("a"), AssertionError(), Failing("own"), OSError("disk"),
              RecursionError("deep"), NotImplementedError(), ZeroDivisionError("z")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_whatever_a_forward_pass_raises_is_one_error(error):
    def forward(self, x):
        raise error

    with pytest.raises(BadInput, match=r"Net fails on an input of shape \(1, 3, 8, 8\)") as caught:
        trace(Net(forward), torch.randn(IMAGE))
    assert caught.value.hint
    assert caught.value.__cause__ is error


def test_a_network_for_training_only():
    def forward(self, x):
        if not self.training:
            raise RuntimeError("call me with targets")
        return self.conv(x)

    net = Net(forward)
    with pytest.raises(BadInput, match="call me with targets"):
        trace(net, torch.randn(IMAGE))
    assert net.training


def test_terabytes_are_refused_at_once_and_traced_on_the_meta_device():
    grow = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2**19))
    with pytest.raises(BadInput, match="more memory than there is") as caught:
        trace(grow, torch.randn(IMAGE))
    assert "meta" in caught.value.hint
    with torch.device("meta"):
        huge = nn.Sequential(nn.Linear(2**20, 2**20), nn.ReLU(), nn.Linear(2**20, 10))
    program = capture(huge, torch.empty(1, 2**20))
    assert program.workload.macs == 2**40 + 10 * 2**20
    assert program.workload.parameter_count == 2**40 + 2**20 + 10 * 2**20 + 10
    with pytest.raises(BadInput, match="meta device"):
        WorkloadModule(program)


def test_meta_networks_that_look_at_their_data():
    with torch.device("meta"):
        net = Net(lambda s, x: s.conv(x) if x.sum() > 0 else x)
    with pytest.raises(BadInput, match="meta device"):
        trace(net, torch.randn(IMAGE))


IN_PLACE = {
    "method": lambda s, x: s.conv(x).relu_().add_(1).mul_(2),
    "functional": lambda s, x: F.relu(s.conv(x), inplace=True) + 1,
    "own input": lambda s, x: s.conv(x.mul_(2)),
    "into zeros": lambda s, x: torch.zeros(1, 4, 8, 8).add_(s.conv(x)) + 1,
    "augmented": lambda s, x: _augmented(s.conv(x)),
    "part": lambda s, x: _part(s.conv(x)),
    "part of zeros": lambda s, x: _part_of_zeros(s.conv(x)),
    "view of the same": lambda s, x: _through_view(s.conv(x)),
    "out": lambda s, x: torch.add(s.conv(x), 1, out=torch.empty(1, 4, 8, 8)),
}


def _augmented(y):
    y += 1
    y *= y
    y[:, 1:2] *= 3
    return y


def _part(y):
    y[:, :2, 1:-1] = y[:, 2:, 1:-1] * 2
    y[0, 0] = 5.0
    return y


def _part_of_zeros(y):
    z = torch.zeros(1, 8, 8, 8)
    z[:, 2:6] = y
    w = z + 1
    z[:, 0] = y[:, 3]
    return w + z


def _through_view(y):
    y.view(-1).relu_()
    return y + 1


@pytest.mark.parametrize("kind", IN_PLACE)
def test_in_place_calls(kind):
    net = Net(IN_PLACE[kind])
    program = capture(net, torch.randn(IMAGE))
    assert unknown(program.workload) == []
    x = torch.randn(IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(WorkloadModule(program)(x), net(x.clone()))


def test_writing_through_another_view_is_never_wrong():
    def forward(self, x):
        y = self.conv(x)
        y[:, :2].relu_()
        return y + 1

    program = capture(Net(forward), torch.randn(IMAGE))
    assert unknown(program.workload) == ["a write through another view"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types(dtype):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                        nn.Linear(144, 5)).to(dtype).eval()  # fmt: skip
    program = capture(net, torch.randn(IMAGE))
    assert [n.op.kind for n in program.workload.nodes] == ["conv2d", "reshape", "linear"]
    with torch.no_grad():
        x = torch.randn(IMAGE)
        want = net.double()(x.double()).float()
        torch.testing.assert_close(WorkloadModule(program)(x), want, rtol=1e-3, atol=1e-3)


def test_complex_numbers_are_unknown_not_wrong():
    load = trace(Net(lambda s, x: (torch.fft.rfft2(s.conv(x)) * 2).abs()), torch.randn(IMAGE))
    assert unknown(load)[0] == "fft_rfft2"
    assert len(unknown(load)) == 3
    assert load.macs == CONV_MACS


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.position = nn.Embedding(11, 8), nn.Embedding(6, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.table(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.layers(x, mask=mask))


def test_tokens_through_a_transformer():
    load = same(Tokens(), torch.randint(11, (1, 6)))
    per_layer = 6 * (8 * 24 + 8 * 8 + 8 * 16 * 2) + 2 * 6 * 6 * 8
    assert load.macs == 2 * per_layer + 6 * 8 * 3


def test_tokens_where_an_image_was_given():
    with pytest.raises(BadInput, match="fails") as caught:
        trace(Tokens(), torch.randn(1, 6))
    assert "integers" in caught.value.hint


def test_batches():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    one, four = (trace(net, torch.randn(n, 3, 8, 8)) for n in (1, 4))
    assert four.macs == 4 * one.macs
    same(net, torch.randn(4, 3, 8, 8))


def _deep(count):
    layers = [nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
              for _ in range(count)]  # fmt: skip
    return nn.Sequential(*layers).eval()


def test_two_thousand_layers():
    load = trace(_deep(2000), torch.randn(1, 2, 2, 2))
    assert len(load) == 2000
    assert load.macs == 2000 * 16


def test_work_grows_with_depth_and_no_faster():
    x = torch.randn(1, 2, 2, 2)

    def calls(count):
        net, seen = _deep(count), 0

        def watch(frame, event, argument):
            nonlocal seen
            seen += event in ("call", "c_call")

        sys.setprofile(watch)
        try:
            trace(net, x)
        finally:
            sys.setprofile(None)
        return seen

    # Ten times the layers; quadratic work would take a hundred times as many calls.
    assert calls(500) < 12 * calls(50)


def test_nested_deeper_than_python_allows():
    net = nn.Conv2d(3, 4, 1)
    for _ in range(3000):
        outer = nn.Module.__new__(nn.Sequential)
        nn.Module.__init__(outer)
        outer.add_module("0", net)
        net = outer
    with pytest.raises((ChipfitError, RecursionError)):
        trace(net, torch.randn(IMAGE))


def test_hooks_are_part_of_the_network():
    net = Net(lambda s, x: s.conv(x))
    net.conv.register_forward_hook(lambda module, args, out: out * 2)
    net.conv.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    assert [n.op.kind for n in same(net, torch.randn(IMAGE)).nodes] == ["add", "conv2d", "mul"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm,
     nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.orthogonal],
    ids=lambda f: f.__module__.rpartition(".")[2] + "." + f.__name__,
)  # fmt: skip
def test_weights_that_are_computed(wrap):
    net = nn.Sequential(wrap(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2))
    load = same(net, torch.randn(1, 6))
    assert load.macs == 32
    assert [n.module for n in load.nodes] == ["0", "2"]
    assert capture(net, torch.randn(1, 6)).reached >= {"2.weight", "2.bias"}


def test_lazy_modules():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))
    assert trace(net, torch.randn(IMAGE)).macs == 3 * 4 * 9 * 36 + 144 * 2


def test_wrappers():
    conv = nn.Conv2d(3, 4, 3, padding=1)
    for net in (nn.DataParallel(conv), torch.compile(conv), nn.DataParallel(torch.compile(conv))):
        load = trace(net, torch.randn(IMAGE))
        assert load.macs == CONV_MACS
        assert load.nodes[0].module == ""
    inside = nn.Sequential(torch.compile(conv), nn.ReLU())
    assert trace(inside, torch.randn(IMAGE)).macs == CONV_MACS
    conv.compile()
    assert trace(nn.Sequential(conv), torch.randn(IMAGE)).macs == CONV_MACS


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_is_refused_whole_and_named_inside():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()))
    with pytest.raises(BadInput, match="TorchScript"):
        trace(scripted, torch.randn(IMAGE))
    load = trace(nn.Sequential(scripted, nn.Conv2d(4, 2, 1)), torch.randn(IMAGE))
    assert unknown(load) == ["TorchScript Sequential"]
    assert load.macs == 4 * 2 * 64


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_are_named():
    from torch.ao.quantization import quantize_dynamic

    net = quantize_dynamic(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {nn.Linear})
    assert any("linear_dynamic" in name for name in unknown(trace(net, torch.randn(1, 8))))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_modules(reentrant):
    def forward(self, x):
        return checkpoint(self.conv, x, use_reentrant=reentrant) * 2

    assert same(Net(forward), torch.randn(IMAGE)).macs == CONV_MACS


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes_and_functions_of_ones_own(mode):
    def forward(self, x):
        with mode():
            y = _Square.apply(self.conv(x))
            y = y.add_(1)
        return y * 2

    load = same(Net(forward), torch.randn(IMAGE))
    assert [n.op.kind for n in load.nodes] == ["conv2d", "mul", "add", "mul"]


def test_a_network_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.randn(IMAGE)
    copy = x.clone()
    fast = torch.backends.mha.get_fastpath_enabled()
    trace(nn.Sequential(nn.ReLU(inplace=True), net), x)
    assert torch.equal(x, copy)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled() == fast


class Numbers(nn.Module):
    """Leaves PyTorch's view for a moment, which breaks tracers of gradients."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x):
        return self.b(self.a(x).data * 2).detach()


def test_layers_are_coupled_through_data_that_leaves_pytorchs_view():
    groups = channel_groups(Numbers(), torch.randn(1, 8))
    assert [(g.name, g.channels, bool(g.frozen)) for g in groups] == [
        ("a", 24, False),
        ("b", 8, True),
    ]


def test_a_network_that_cannot_be_coupled_is_frozen_whole():
    class Shy(Net):
        def forward(self, x):
            if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
                raise RuntimeError("nobody may watch")
            return self.conv(x)

    groups = channel_groups(Shy(), torch.randn(IMAGE))
    assert [(g.name, g.channels) for g in groups] == [("conv", 4)]
    assert "nobody may watch" in groups[0].uncoupled
    assert groups[0].frozen == groups[0].uncoupled
