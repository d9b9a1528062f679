# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.nets.convnext import CONVNEXT_B, CONVNEXT_S, CONVNEXT_T
from chipfit.nets.ran_i import RAN_I_B, RAN_I_S, RAN_I_T
from chipfit.scores.nn_mass import nn_mass, nn_mass_convnext, nn_mass_dense_cell

PUBLISHED = {
    "convnext_tiny": (CONVNEXT_T, 13248),
    "convnext_small": (CONVNEXT_S, 27072),
    "convnext_base": (CONVNEXT_B, 36096),
    "ran_i_tiny": (CONVNEXT_T.scaled(*RAN_I_T), 14710),
    "ran_i_small": (CONVNEXT_T.scaled(*RAN_I_S), 17420),
    "ran_i_base": (CONVNEXT_T.scaled(*RAN_I_B), 28154),
}


def _trace(net, channels=3, size=32):
    return trace(net, torch.zeros(1, channels, size, size))


@pytest.mark.parametrize("name", PUBLISHED)
def test_convnext_family_has_the_published_mass(name):
    stages, mass = PUBLISHED[name]
    assert nn_mass_convnext(stages.widths, stages.depths) == mass


@pytest.mark.parametrize("name", ["convnext_tiny", "ran_i_tiny"])
def test_the_traced_network_has_the_mass_of_the_closed_form(name):
    with torch.device("meta"):
        net = cf.nets.create(name, input_shape=(1, 3, 32, 32))
    assert nn_mass(_trace(net)) == PUBLISHED[name][1]


def test_stages_must_pair_up():
    with pytest.raises(BadInput, match="equal stages"):
        nn_mass_convnext((8, 16), (1,))
    with pytest.raises(BadInput, match="equal stages"):
        nn_mass_convnext((8,), (-1,))


@pytest.mark.parametrize(("depth", "mass"), [(32, 66.1), (256, 64.3)])
def test_a_deep_dense_cell_tends_to_twice_its_skip_channels(depth, mass):
    assert round(nn_mass_dense_cell(64, depth, 32), 1) == mass


def test_dense_cell_by_hand():
    # Layers 2, 3 and 4 could read 4, 8 and 12 channels and read 4, 6 and 6.
    assert nn_mass_dense_cell(4, 5, 6) == 16 / 24 * 4 * 5
    assert nn_mass_dense_cell(4, 2, 6) == 0
    assert nn_mass_dense_cell(4, 5, 0) == 0
    with pytest.raises(BadInput, match="no cell"):
        nn_mass_dense_cell(0, 5, 6)


class DenseCell(nn.Module):
    """Layer ``i`` reads layer ``i - 1`` and at most ``skips`` random channels of earlier ones."""

    def __init__(self, width, depth, skips, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleList()
        self.picks = [None]
        for i in range(1, depth):
            picked = min((i - 1) * width, skips)
            self.layers.append(nn.Conv2d(width + picked, width, 3, padding=1))
            if i > 1:
                order = torch.randperm((i - 1) * width, generator=generator)
                self.picks.append(order[:picked].sort().values)

    def forward(self, x):
        made = [self.stem(x)]
        for layer, pick in zip(self.layers, self.picks, strict=True):
            x = made[-1]
            if pick is not None:
                x = torch.cat([torch.cat(made[:-1], 1)[:, pick], x], 1)
            made.append(layer(x).relu())
        return made[-1].mean((2, 3))


@pytest.mark.parametrize(("width", "depth", "skips"), [(8, 6, 12), (4, 7, 4), (5, 3, 100)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_traced_dense_cell_has_the_mass_of_the_closed_form(width, depth, skips, seed):
    workload = _trace(DenseCell(width, depth, skips, seed), size=8)
    assert nn_mass(workload) == pytest.approx(nn_mass_dense_cell(width, depth, skips), rel=1e-12)


class Branches(nn.Module):
    def __init__(self, join, shortcut):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.left = nn.Conv2d(6, 6, 3, padding=1)
        self.right = nn.Conv2d(6, 6, 1) if shortcut == "projection" else nn.Identity()
        self.join = join

    def forward(self, x):
        x = self.stem(x)
        return self.join(self.left(x).relu(), self.right(x))


def _concatenate(x, y):
    return torch.cat([x, y], 1)


def test_only_direct_connections_count():
    assert nn_mass(_trace(Branches(torch.add, "identity"))) == 2 * 6
    assert nn_mass(_trace(Branches(torch.add, "projection"))) == 0
    assert nn_mass(_trace(Branches(torch.mul, "identity"))) == 0
    # One skip connection of 6 channels out of 6 possible; stem, left and the reader make 3 layers.
    assert nn_mass(_trace(Branches(_concatenate, "identity"))) == 6 * 3
    assert nn_mass(_trace(Branches(_concatenate, "projection"))) == 0


def test_channels_of_a_sequence_are_its_last_axis():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 5)

        def forward(self, x):
            return x + self.inner(x).relu()

    assert nn_mass(trace(Mixer(), torch.zeros(1, 7, 5))) == 2 * 5
    assert nn_mass(trace(Mixer(), torch.zeros(1, 7, 3, 5))) == 2 * 5


def test_resnet18_counts_its_five_identity_blocks():
    net = cf.nets.create("resnet18", input_shape=(1, 3, 32, 32))
    assert nn_mass(_trace(net)) == 2 * (64 + 64 + 128 + 256 + 512)


@pytest.mark.parametrize(
    ("cell", "connections"),
    [
        ("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_3x3~1|none~2|", 1),
        # Two ways past layers in one sum, in whatever order its terms are added.
        (
            "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+"
            "|skip_connect~0|skip_connect~1|nor_conv_3x3~2|",
            2,
        ),
        (
            "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+"
            "|nor_conv_1x1~0|skip_connect~1|nor_conv_3x3~2|",
            1,
        ),
        ("|nor_conv_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|nor_conv_3x3~1|none~2|", 0),
    ],
)
def test_every_connection_of_a_sum_counts_once(cell, connections):
    net = cf.nets.create("nas_bench_201", cell=cell, cells=1, input_shape=(1, 3, 8, 8))
    assert nn_mass(_trace(net, size=8)) == 2 * connections * (16 + 32 + 64)
