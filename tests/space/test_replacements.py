"""Blocks that others may stand for, in networks of any class."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from chipfit.blocks.registry import create_block
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.nets import create
from chipfit.rewrite import replay
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation
from chipfit.space.replacements import KINDS, Pool, choice_of, replacement_space, with_keep
from chipfit.space.replacements_places import find_places

EVERYTHING = Pool(tuple(KINDS))


def unit(i, o, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU())


class Residual(nn.Module):
    """A class of the user's own, with the activation behind its sum as a function."""

    def __init__(self, channels):
        super().__init__()
        self.a, self.b = unit(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x):
        return functional.relu(self.b(self.a(x)) + x)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = unit(3, 8)
        self.layers = nn.Sequential(
            Residual(8), unit(8, 16, 2), nn.Sequential(unit(16, 16), unit(16, 16))
        )
        self.twice = unit(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.layers(self.stem(x))
        x = self.twice(self.twice(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def own():
    torch.manual_seed(0)
    return Own().eval(), torch.randn(1, 3, 12, 12)


def names(places):
    return [place.module for place in places]


def test_blocks_are_found_in_a_network_of_ones_own(own):
    net, x = own
    places = find_places(net, x)
    # What runs twice cannot go; a Sequential of units is looked into, a residual block is whole.
    assert names(places) == ["stem", "layers.0", "layers.1", "layers.2.0", "layers.2.1"]
    assert [place.stride for place in places] == [1, 1, 2, 1, 1]
    assert {place.last for place in places} == {"relu"}
    assert places[2].in_shape == (1, 8, 12, 12)
    assert places[2].out_shape == (1, 16, 6, 6)
    assert names(find_places(net, x, keep=("layers.2",))) == ["stem", "layers.0", "layers.1"]


def test_known_networks():
    net = create("tiny_mobilenet_v2").eval()
    x = torch.zeros(net.input_shape)
    places = find_places(net, x)
    assert names(places) == [f"features.{i}" for i in range(7)]
    assert [place.last for place in places] == ["relu6", *["none"] * 5, "relu6"]
    assert [place.pads_same for place in places] == [True, False, True, *[False] * 4]
    resnet = create("resnet18", num_classes=10, input_shape=(1, 3, 32, 32)).eval()
    found = names(find_places(resnet, torch.zeros(1, 3, 32, 32)))
    assert found == [f"layer{s}.{i}" for s in (1, 2, 3, 4) for i in (0, 1)]


def test_a_block_of_many_small_parts_is_one():
    block = create_block("ghost_bottleneck", 8, 16, 2, hidden=24, squeeze_excite=0.25)
    net = nn.Sequential(unit(3, 8), block, nn.Flatten(), nn.Linear(16 * 36, 5)).eval()
    assert names(find_places(net, torch.zeros(1, 3, 12, 12))) == ["0", "1"]


def test_a_flat_network_offers_its_convolutions():
    net = nn.Sequential(*unit(3, 8), *unit(8, 8, 2), *unit(8, 8), *unit(8, 8), *unit(8, 8),
                        *unit(8, 8), *unit(8, 8), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()  # fmt: skip
    x = torch.zeros(1, 3, 12, 12)
    places = find_places(net, x)
    assert names(places) == ["0", "3", "6", "9", "12", "15", "18"]
    assert {place.last for place in places} == {"none"}  # batch norm and ReLU stay behind
    space = replacement_space(net, x, Pool(("skip", "separable")))
    with torch.no_grad():
        assert replay(net, space.edits({c.name: c.operations[-1].name for c in space}))(x).shape


def test_patterns_name_blocks(own):
    net, x = own
    assert names(find_places(net, x, ["layers.*"])) == ["layers.0", "layers.1", "layers.2"]
    assert names(find_places(net, x, ["layers.2.?", "stem"])) == [
        "stem", "layers.2.0", "layers.2.1",
    ]  # fmt: skip
    for pattern, message in [
        ("blocks.*", "no module"), ("twice", "called 2 times"), ("head", "does not map one image"),
        ("stem.0.weight", "no module"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=message):
            find_places(net, x, [pattern])
    with pytest.raises(BadInput, match="stands in layers.2"):
        find_places(net, x, ["layers.*", "layers.2.*"])


def test_every_replacement_keeps_the_shape_and_the_rest_of_the_network(own):
    for net, x in [own, (create("tiny_mobilenet_v2").eval(), torch.randn(1, 1, 28, 28))]:
        space = replacement_space(net, x, EVERYTHING)
        places = {place.module: place for place in find_places(net, x)}
        for choice in space:
            assert choice.operations[0] == Operation(KEEP)
            place = places[choice.name]
            assert ("skip" in [o.name for o in choice.operations]) == place.keeps_shape
            for operation in choice.operations[1:]:
                block = operation.swaps[0].build().eval()
                y = block(torch.randn(place.in_shape))
                assert y.shape == place.out_shape, operation.name
                ends = [n.op.activation for n in trace(block, torch.randn(place.in_shape)).nodes]
                if place.last != "none" and operation.name != "skip":
                    assert ends[-1] == place.last or operation.name.startswith("ghost")
        kept = replay(net, space.edits({c.name: KEEP for c in space}))
        with torch.no_grad():
            assert torch.equal(kept(x), net(x))


def test_hidden_channels_are_aligned_and_padding_goes_on():
    net = create("tiny_mobilenet_v2").eval()
    x = torch.zeros(net.input_shape)
    space = replacement_space(net, x, Pool(("inverted", "bottleneck"), (3,), (1.7,), 16))
    swaps = [o.swaps[0] for c in space for o in c.operations[1:]]
    inner = [s.options["options"] if s.block == "activated" else s.options for s in swaps]
    assert all(options["hidden"] % 16 == 0 for options in inner)
    assert [s.options["same_size"] for s in swaps if s.module == "features.2"] == [[14, 14]] * 2


def test_what_cannot_be_offered_is_refused(own):
    net, x = own
    for wrong in ({"kinds": ("magic",)}, {"kinds": ()}, {"kinds": ("conv",), "kernels": (2,)},
                  {"kinds": ("inverted",), "expansions": (0.0,)},
                  {"kinds": ("conv",), "alignment": 0}):  # fmt: skip
        with pytest.raises(BadInput):
            Pool(**wrong)
    with pytest.raises(BadInput, match="no block that another could stand for"):
        replacement_space(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.zeros(1, 3, 4, 4),
                          EVERYTHING)  # fmt: skip


def test_operations_of_one_name_are_offered_once(own):
    net, x = own
    choice = choice_of(find_places(net, x)[1], Pool(("fused", "inverted"), (3,), (1.5, 1.6)))
    assert [o.name for o in choice.operations] == [KEEP, "fused_k3_h16", "inverted_k3_h16"]


def test_a_space_of_ones_own_can_keep_its_blocks(toy_net):
    space = toy_net().block_space
    assert with_keep(space) == space
    bare = BlockSpace(
        tuple(BlockChoice(c.name, c.places, c.operations[1:]) for c in space)
    )  # fmt: skip
    assert with_keep(bare) == space
