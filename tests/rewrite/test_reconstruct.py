import copy

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.channels import channel_groups
from chipfit.graph.layer_columns import input_columns, input_columns_at, matrix_of, output_columns
from chipfit.graph.norms_behind import norms_behind
from chipfit.nets import create
from chipfit.rewrite import edits_for, side_sizes, slice_channels
from chipfit.rewrite.reconstruct import reconstruct
from chipfit.rewrite.solve_layer import factors_of


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(6, 6, (3, 5), padding=2, groups=6, bias=False),
        nn.Conv2d(6, 8, 3, groups=2, dilation=2, bias=False),
        nn.Linear(6, 4, bias=False),
    ],
    ids=["dense", "depthwise", "grouped", "linear"],
)
def test_columns_times_matrix_are_the_layer(layer):
    layer = layer.double()
    shape = (20, 6) if isinstance(layer, nn.Linear) else (20, 6, 9, 11)
    x = torch.rand(shape, dtype=torch.float64)
    columns = input_columns(layer, x)
    made = matrix_of(layer) @ columns
    torch.testing.assert_close(made, output_columns(layer, layer(x)))
    places = torch.tensor([0, 3, 19])
    assert torch.equal(input_columns_at(layer, x, places), columns[:, :, places])


def redundant(seed=0):
    """Two convolutions with the hidden channels 4 to 7 sums of the first four."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 3), nn.Flatten(),
                        nn.Linear(5 * 36, 4)).double().eval()  # fmt: skip
    mix = torch.rand(4, 4, dtype=torch.float64)
    with torch.no_grad():
        net[0].weight[4:] = torch.einsum("oi,ichw->ochw", mix, net[0].weight[:4])
        net[0].bias[:] = torch.cat([net[0].bias[:4], mix @ net[0].bias[:4]])
    return net


def narrowed(net, example, kept):
    groups = channel_groups(net, example)
    edits = edits_for(groups, kept, side_sizes(net))
    return slice_channels(net, edits), edits


def test_channels_that_others_can_stand_for_are_not_missed():
    """Padding is zero: where a channel is a sum of others its border is the sum of theirs."""
    net, x = redundant(), torch.rand(32, 3, 8, 8, dtype=torch.float64)
    small, edits = narrowed(net, x[:1], {"0": range(4)})
    assert not torch.allclose(small(x), net(x), atol=1e-3)
    assert reconstruct(small, net, edits, x, damping=1e-12) == ["0", "1", "3"]
    torch.testing.assert_close(small(x), net(x), rtol=1e-5, atol=1e-6)


def test_a_network_that_is_whole_stays_what_it_is():
    net = create("tiny_mobilenet_v2", input_shape=(1, 3, 16, 16)).double().eval()
    x = torch.rand(16, 3, 16, 16, dtype=torch.float64)
    twin = copy.deepcopy(net)
    norms = norms_behind(net, trace(copy.deepcopy(net).float(), x[:1].float()))
    solved = reconstruct(twin, net, [], x, norms=norms)
    assert len(solved) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules())
    torch.testing.assert_close(twin(x), net(x))


def test_it_is_least_squares():
    """No small change of a solved weight makes the outputs of that layer any better."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    x = torch.rand(100, 10, dtype=torch.float64)
    small, edits = narrowed(net, x[:1], {"0": range(5)})
    reconstruct(small, net, edits, x, damping=1e-12)
    weight, bias = small[2].weight.detach(), small[2].bias.detach()
    hidden = torch.relu(small[0](x)).detach()

    def error(weight, bias):
        return float(((hidden @ weight.T + bias - net(x)) ** 2).sum().detach())

    best = error(weight, bias)
    torch.manual_seed(2)
    for _ in range(20):
        assert error(weight + 1e-3 * torch.randn_like(weight), bias) > best
        assert error(weight, bias + 1e-3 * torch.randn_like(bias)) > best


def test_the_norm_behind_takes_up_the_mean_and_modes_are_kept():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False),
                        nn.BatchNorm2d(4)).double().train()  # fmt: skip
    x = torch.rand(16, 3, 6, 6, dtype=torch.float64)
    net(x)
    wanted = copy.deepcopy(net).eval()(x)
    small, edits = narrowed(net, x[:1], {"0": range(3)})
    small.train()
    reconstruct(small, net, edits, x, norms={"2": "3"})
    assert small.training and small[3].training and net.training
    made = small.eval()(x)
    torch.testing.assert_close(made.mean((0, 2, 3)), wanted.mean((0, 2, 3)))


def test_the_norm_behind_does_the_same_in_training_mode():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False),
                        nn.BatchNorm2d(4)).double().train()  # fmt: skip
    nn.init.uniform_(net[3].weight, -1, 1)
    x = torch.rand(16, 3, 6, 6, dtype=torch.float64)
    for _ in range(20):
        net(x)
    small, edits = narrowed(net, x[:1], {"0": range(3)})
    reconstruct(small, net, edits, x, norms={"2": "3"})
    made = small.eval()(x)
    torch.testing.assert_close(small.train()(x), made)


class Residual(nn.Module):
    """A branch at whose end there is a batch norm, added to what a narrower stem lost in part."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.outer, self.norm = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return x + self.norm(self.outer(torch.relu(self.inner(x))))


def test_the_end_of_a_branch_makes_up_for_what_the_shortcut_lost():
    torch.manual_seed(5)
    net = Residual().double().eval()
    nn.init.uniform_(net.norm.weight, -1, -0.1)
    x = torch.rand(64, 3, 6, 6, dtype=torch.float64)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.stem.bias += 0.3 * torch.rand(8, dtype=torch.float64)
    alone = copy.deepcopy(twin)
    reconstruct(alone, net, [], x, norms={"outer": "norm"}, layers=["inner"], damping=1e-12)
    solved = reconstruct(
        twin, net, [], x, norms={"outer": "norm"}, layers=["inner", "outer"], damping=1e-12
    )
    assert solved == ["inner", "outer"]

    # Least squares by hand: what the sum lacks, from what the last layer reads, and a mean.
    shortcut = torch.relu(twin.stem(x))
    reads = torch.relu(twin.inner(shortcut)).permute(0, 2, 3, 1).reshape(-1, 6)
    reads = torch.cat([reads, torch.ones(len(reads), 1, dtype=torch.float64)], 1).detach()
    lacks = (net(x) - shortcut).permute(0, 2, 3, 1).reshape(-1, 8).detach()
    best = reads @ torch.linalg.lstsq(reads, lacks, driver="gelsd").solution
    left = float(((best - lacks) ** 2).mean())
    assert float(((twin(x) - net(x)) ** 2).mean().detach()) == pytest.approx(left, rel=1e-6)
    assert left < 0.5 * float(((alone(x) - net(x)) ** 2).mean().detach())


class Branching(Residual):
    """Makes other calls for more than two images."""

    def forward(self, x):
        if len(x) > 2:
            x = x.unsqueeze(0).repeat(2, 1, 1, 1, 1)[0].mul(1.0)
        return super().forward(x)


def test_a_network_that_makes_other_calls_is_solved_without_its_shortcuts():
    torch.manual_seed(6)
    net = Branching().double().eval()
    x = torch.rand(64, 3, 6, 6, dtype=torch.float64)
    small, edits = narrowed(net, x[:2], {"inner": range(4)})
    assert reconstruct(small, net, edits, x, norms={"outer": "norm"}) == ["stem", "inner", "outer"]
    torch.testing.assert_close(small(x).mean((0, 2, 3)), net(x).mean((0, 2, 3)))


def test_what_a_norm_all_but_removes_makes_up_for_nothing():
    norm = nn.BatchNorm2d(3)
    norm.weight.data = torch.tensor([2.0, -1e-4, 0.0])
    norm.running_var[:] = 4 - norm.eps
    torch.testing.assert_close(factors_of(norm, 3), torch.tensor([1.0, torch.inf, torch.inf]))
    assert torch.equal(factors_of(None, 2), torch.ones(2))


def test_it_needs_inputs():
    net = redundant()
    with pytest.raises(BadInput, match="needs inputs"):
        reconstruct(net, net, [], torch.empty(0, 3, 8, 8))


def test_a_swapped_block_makes_what_the_block_made():
    """A block without activations is one convolution, which is found."""
    torch.manual_seed(4)
    block = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 3, padding=0))
    net = nn.Sequential(nn.Conv2d(3, 4, 1), block, nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    x = torch.rand(64, 3, 8, 8, dtype=torch.float64)
    twin = copy.deepcopy(net)
    twin[1] = nn.Sequential(nn.Conv2d(4, 5, 3).double())
    solved = reconstruct(twin, net, [], x, places={"1.0": "1"}, damping=1e-12)
    assert solved == ["0", "1.0", "3"]
    torch.testing.assert_close(twin(x), net(x), rtol=1e-5, atol=1e-6)
