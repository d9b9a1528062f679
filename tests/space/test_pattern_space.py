import pytest

from chipfit.errors import BadInput
from chipfit.nets.ran_e_pattern import Pattern
from chipfit.space.ran_e import BLOCKS, pattern_space


def test_every_block_has_the_published_options():
    space = pattern_space()
    assert len(space) == BLOCKS == 16
    assert {len(choice.options) for choice in space} == {1 + 3 * 3}
    assert space.size == 10**16


def test_every_option_is_a_part_of_a_pattern():
    space = pattern_space(3, fused=(1, 2))
    for seed in range(20):
        parts = list(space.sample(seed).values())
        assert [str(block) for block in Pattern.of(parts).blocks] == parts


def test_no_block_makes_no_space():
    with pytest.raises(BadInput, match="0 blocks"):
        pattern_space(0)
