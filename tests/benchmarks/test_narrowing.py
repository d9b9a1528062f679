"""The plain ways to make a network narrower that NetAdapt is compared with."""

import sys
from pathlib import Path

import pytest
import torch

import chipfit as cf

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.narrowing import (
    MagnitudePruning,
    UniformWidths,
    largest_within,
)
from chipfit.errors import InfeasibleBudget
from chipfit.graph import trace


class Rungs(list):
    def describe(self, rung):
        return str(rung)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 17, 100])
def test_the_largest_rung_within_the_budget_is_found(count):
    ladder = Rungs(range(count))
    for largest in range(count):
        found = largest_within(ladder, lambda nets, top=largest: [n <= top for n in nets], "n")
        assert found == largest


def test_small_rungs_that_are_over_budget_do_not_mislead_the_search():
    within = largest_within(Rungs(range(50)), lambda nets: [5 < n <= 33 for n in nets], "n")
    assert within == 33
    with pytest.raises(InfeasibleBudget, match="of thin nets"):
        largest_within(Rungs(range(50)), lambda nets: [False for _ in nets], "thin nets")


@pytest.fixture(scope="module")
def tiny():
    net = cf.nets.create("tiny_mobilenet_v2", num_classes=10, input_shape=(1, 1, 8, 8))
    return net.eval(), torch.zeros(1, 1, 8, 8)


def widths(net, example):
    return {n.name: n.op.output[1] for n in trace(net, example).nodes if n.op.kind == "conv2d"}


def test_uniform_widths_grow_in_aligned_steps_up_to_the_original(tiny):
    net, example = tiny
    ladder = UniformWidths(net, example, 8)
    found = [ladder.widths(factor) for factor in ladder.factors]
    assert found == sorted(found, key=lambda w: sum(w.values()))
    assert len({tuple(w.items()) for w in found}) == len(ladder)
    assert all(width % 8 == 0 for own in found for width in own.values())
    assert widths(ladder[len(ladder) - 1], example) == widths(net, example)
    half = next(i for i, factor in enumerate(ladder.factors) if factor >= 0.5)
    assert 0.4 < sum(found[half].values()) / sum(found[-1].values()) < 0.6
    narrow = widths(ladder[half], example)
    assert sum(narrow.values()) < 0.6 * sum(widths(net, example).values())


def test_magnitude_pruning_leaves_the_classifier_and_the_original_alone(tiny):
    net, example = tiny
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ladder = MagnitudePruning(net, example, 8)
    whole, half = ladder[len(ladder) - 1], ladder[len(ladder) // 2]
    assert widths(whole, example) == widths(net, example)
    pruned = widths(half, example)
    assert sum(pruned.values()) < sum(widths(net, example).values())
    assert all(width % 8 == 0 for width in pruned.values())
    assert half(example).shape == (1, 10)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
