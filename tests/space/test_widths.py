"""Widths that a device likes, of channels that each own several places of a layer."""

import pytest

from chipfit.errors import BadInput
from chipfit.graph.channels import ChannelGroup, Member
from chipfit.space.widths import width_options, width_space, width_step


def group(name, channels, *each, frozen=""):
    members = tuple(
        Member(f"{name}.{i}", "out", tuple(tuple(range(c * n, (c + 1) * n)) for c in range(channels)))
        for i, n in enumerate(each)
    )  # fmt: skip
    return ChannelGroup(name, channels, members, frozen)


@pytest.mark.parametrize(
    ("each", "step"), [((1,), 8), ((64, 192), 1), ((2, 4), 4), ((3,), 8), ((12, 8), 2)]
)
def test_layers_stay_multiples_of_the_alignment(each, step):
    assert width_step(group("g", 16, *each), 8) == step
    assert all(step * n % 8 == 0 for n in each)


def test_whole_heads_can_go_and_few_channels_cannot():
    groups = [group("heads", 3, 64, 192), group("dims", 64, 3), group("few", 6, 1),
              group("last", 64, 1, frozen="makes the output")]  # fmt: skip
    options = {choice.name: choice.options for choice in width_space(groups, 8)}
    assert options == {"heads": (1, 2, 3), "dims": width_options(64, 8)}
    with pytest.raises(BadInput, match="6 channels, alignment 8"):
        width_space(groups[2:], 8)
