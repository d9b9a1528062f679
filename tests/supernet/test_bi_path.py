import copy
import itertools

import pytest
import torch
from torch import nn

from chipfit.blocks.registry import create_block
from chipfit.rewrite.swap import Swap
from chipfit.supernet.bi_path import BiPath
from chipfit.supernet.hidden_grid import block_shapes, swap_at
from chipfit.supernet.memory import saved_activation_bytes
from chipfit.supernet.window import Window

#: Blocks of every form that a slice has to respect.
BLOCKS = {
    "inverted residual": ("inverted_residual", 8, 8, 1, {"kernel": 5}),
    "with a stride and SAME padding": (
        "inverted_residual", 8, 12, 2, {"same_size": [7, 8], "act": "hardswish"},
    ),
    "with squeeze-excite": ("inverted_residual", 8, 8, 1, {"squeeze_excite": 0.25}),
    "fused": ("fused_inverted_residual", 8, 8, 1, {"act": "relu"}),
    "fused with squeeze-excite": ("fused_inverted_residual", 8, 16, 2, {"squeeze_excite": 0.5}),
}  # fmt: skip
WIDTHS = (12, 20, 24, 40)


@pytest.fixture(params=BLOCKS)
def made(request):
    """Return a bi-path with random statistics, and a function that builds a width of it."""
    name, c_in, c_out, stride, options = BLOCKS[request.param]
    swap = Swap("", name, c_in, c_out, stride, options)
    torch.manual_seed(0)
    block = swap_at(swap, WIDTHS[-1]).build().double()
    path = BiPath(block, WIDTHS, [block_shapes(swap, w) for w in WIDTHS]).double()
    for value in path.state_dict().values():
        if value.ndim == 1:
            value.uniform_(0.5, 1.5)

    def at(position, like=path):
        built = create_block(name, c_in, c_out, stride, hidden=WIDTHS[position], **{
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
        }).double()  # fmt: skip
        built.load_state_dict(like.state_at(position))
        return built

    x = torch.randn(3, c_in, 7, 8, dtype=torch.float64)
    return path, at, x


def test_either_side_is_the_derived_block(made):
    path, at, x = made
    path.eval()
    for lo, hi in itertools.combinations(range(len(WIDTHS)), 2):
        path.window = Window(lo, hi, 0, len(WIDTHS))
        for side, position in enumerate((lo, hi)):
            derived = at(position).eval()
            assert torch.equal(path(x, side=side), derived(x))
    path.adopt(Window(2, 2, 0, len(WIDTHS)))
    assert torch.equal(path(x), at(2).eval()(x))


@pytest.mark.parametrize("training", [False, True])
def test_both_at_once_are_the_weighted_sum_of_both_in_values_gradients_and_statistics(
    made, training
):
    path, at, x = made
    path.train(training).window = Window(1, 3, 0, len(WIDTHS))
    ends = [at(1).train(training), at(3).train(training)]
    weights = torch.tensor([0.3, 0.9], dtype=torch.float64, requires_grad=True)
    apart = weights.detach().clone().requires_grad_()
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = path(one, weights)
    want = apart[0] * ends[0](two) + apart[1] * ends[1](two)
    assert torch.allclose(got, want, atol=1e-12)
    seed = torch.randn_like(got)
    (got * seed).sum().backward()
    (want * seed).sum().backward()
    assert torch.allclose(weights.grad, apart.grad, atol=1e-10)
    assert torch.allclose(one.grad, two.grad, atol=1e-10)
    wide = dict(ends[1].named_parameters())
    for name, p in path.block.named_parameters():
        part = torch.zeros_like(p)
        box = tuple(slice(s) for s in wide[name].shape)
        part[box] += wide[name].grad
        narrow = dict(ends[0].named_parameters())[name]
        norm = p is path._norms()[1].weight or p is path._norms()[1].bias
        if not norm:
            part[tuple(slice(s) for s in narrow.shape)] += narrow.grad
        assert torch.allclose(p.grad, part, atol=1e-10), name
    if training:
        for position, end in ((1, ends[0]), (3, ends[1])):
            for name, value in path.state_at(position).items():
                assert torch.allclose(value, end.state_dict()[name], atol=1e-12), name


def test_a_move_gives_the_loser_the_winners_batch_norm(made):
    path, _, _ = made
    for up in (True, False):
        moved = copy.deepcopy(path)
        winner = {n: v.clone() for n, v in moved._norms()[int(up)].state_dict().items()}
        pairs = moved.move(Window(1, 2, 0, len(WIDTHS)), up)
        for norm in moved._norms():
            assert all(torch.equal(v, winner[n]) for n, v in norm.state_dict().items())
        assert [a is b for a, b in pairs] == [False, False]
        moved.move(Window(1, 1, 0, len(WIDTHS)), up)
        assert moved.low is None and not any("low" in n for n in moved.state_dict())


def test_a_block_is_taken_for_the_first_channels(made):
    path, at, x = made
    other = at(1)
    for p in other.parameters():
        nn.init.normal_(p)
    path.start_from(other, 1)
    path.eval().window = Window(1, 3, 0, len(WIDTHS))
    assert torch.equal(path(x, side=0), other.eval()(x))


def test_two_widths_hold_hardly_more_than_the_wider_one_alone():
    swap = Swap("", "inverted_residual", 16, 16, 1, {})
    widths = tuple(range(36, 100, 4))
    path = BiPath(swap_at(swap, 96).build(), widths, [block_shapes(swap, w) for w in widths])
    plain = swap_at(swap, 96).build()
    x, weights = torch.randn(2, 16, 8, 8, requires_grad=True), torch.rand(2, requires_grad=True)
    one = saved_activation_bytes(lambda: plain(x).sum().backward(), plain)
    for window in (Window(0, 15, 4, 16), Window(14, 15, 0, 16)):
        path.window = window
        two = saved_activation_bytes(lambda: path(x, weights).sum().backward(), path)
        assert one < two < 1.05 * one


def test_cumulative_statistics_and_untracked_norms_act_as_in_a_plain_block(made):
    path, at, x = made
    path.window = Window(1, 3, 0, len(WIDTHS))
    plain = at(3)
    for module in (*path.modules(), *plain.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    path.train(), plain.train()
    for shift in (0.0, 1.0):
        assert torch.allclose(path(x + shift), plain(x + shift), atol=1e-12)
    state = plain.state_dict()
    assert all(torch.allclose(v, state[n], atol=1e-12) for n, v in path.state_at(3).items())
    before = copy.deepcopy(path.state_dict())
    for module in path.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    path(x)
    assert all(torch.equal(v, path.state_dict()[n]) for n, v in before.items())
