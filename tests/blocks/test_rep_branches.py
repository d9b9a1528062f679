from itertools import combinations

import pytest
import torch
from torch import nn

from chipfit.blocks.linear_branch import LinearBranch
from chipfit.blocks.rep_branches import BRANCHES, RepBranches
from chipfit.errors import BadInput

SHAPES = [(4, 4, 1), (4, 6, 1), (4, 6, 2), (4, 4, 2)]
SUBSETS = [names for size in range(1, 7) for names in combinations(BRANCHES, size)]


def trained_like(block, seed=0):
    """Give batch norms statistics and weights far from the identity, in double precision."""
    draw = torch.Generator().manual_seed(seed)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for name, low in (("running_mean", -0.5), ("running_var", 0.3), ("weight", 0.5),
                              ("bias", -0.5)):  # fmt: skip
                value = getattr(norm, name).data
                value.copy_(torch.rand(value.shape, generator=draw) + low)
    return block.double().eval()


def drawn_block(*shape, **options):
    torch.manual_seed(0)
    return trained_like(RepBranches(*shape, **options))


@torch.no_grad()
def gap(block, x):
    return float((block(x) - block.deployed()(x)).abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_every_subset_of_branches_equals_one_convolution_borders_included(shape):
    assert len(SUBSETS) == 63
    for names in SUBSETS:
        block = drawn_block(*shape, branches=names, act="none")
        for size in ((7, 8), (2, 1)):
            x = 1 + 2 * torch.randn(2, shape[0], *size, dtype=torch.float64)
            assert gap(block, x) < 1e-10, names


def test_zeros_behind_the_first_norm_would_be_wrong_at_the_borders():
    block = drawn_block(4, 6, branches=["1x1-3x3"], act="none")
    branch = block.branches["1x1-3x3"]
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        inner = branch[1](nn.functional.conv2d(x, branch[0].weight))
        zeros = branch[3](nn.functional.conv2d(inner, branch[2].weight, padding=1))
        wrong = (zeros - block.deployed()(x)).abs()
    assert wrong[..., 1:-1, 1:-1].max() < 1e-10
    assert wrong.max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_branches_behind_a_gate_of_zero_are_not_executed(shape):
    block = drawn_block(*shape).train()
    ran = []
    for name, branch in block.branches.items():
        branch.register_forward_hook(lambda *a, name=name: ran.append(name))
    gates = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0], requires_grad=True)
    block.gates = gates
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    (block(x) * torch.randn(1, dtype=torch.float64)).sum().backward()
    assert ran == ["1x1-avg", "1x1-3x3"]
    assert gates.grad is not None and (gates.grad != 0).tolist() == [v != 0 for v in gates]
    for name, branch in block.branches.items():
        assert (branch[0].weight.grad is not None) == (name in ran)


def test_gates_are_part_of_what_is_merged():
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    for shape in SHAPES:
        block = drawn_block(*shape, act="relu")
        block.gates = torch.tensor([0.0, 1.0, 0.5, 0.0, -2.0, 1.0])
        assert gap(block, x) < 1e-10
        block.gates = torch.zeros(6)
        if block.identity is not None:
            assert gap(block, x) < 1e-10
            continue
        for call in (block.deployed, lambda: block(x)):
            with pytest.raises(BadInput, match="all gates"):
                call()


def test_a_gate_of_one_is_as_good_as_none():
    block = drawn_block(4, 4)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        plain = block(x)
        block.gates = torch.ones(6)
        assert torch.equal(block(x), plain)
    for one, other in zip(block.merged(), block.deployed().merged(), strict=True):
        assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_branches_of_other_kernels_merge_too(kernel, stride):
    for kind in ("1x1", "1x1-kxk", "1x1-avg", "kxk", "1xk", "kx1"):
        branch = trained_like(LinearBranch(kind, 3, 5, kernel, stride))
        x = torch.randn(2, 3, 8, 9, dtype=torch.float64)
        weight, bias = branch.merged()
        assert weight.shape == (5, 3, kernel, kernel)
        whole = nn.functional.conv2d(x, weight, bias, stride, kernel // 2)
        assert (branch(x) - whole).abs().max() < 1e-10
