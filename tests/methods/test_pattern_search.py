import itertools
from functools import partial

import numpy as np
import pytest
import torch

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph.capture import trace
from chipfit.methods.ran_e_pattern import (
    Compiled,
    Effort,
    amounts_of,
    compile_pattern,
    search_pattern,
)
from chipfit.nets import create
from chipfit.nets.ran_e_pattern import Pattern
from chipfit.scores.non_linear_units import non_linear_units
from chipfit.space.ran_e import pattern_space
from chipfit.targets import create as create_target

SPACE = pattern_space(5, (3,), (2, 4), (2,))
WIDTH = 4
EFFORT = Effort(sweeps=2, batch=2, patience=8, compilations=60)


def build(parts, size=28):
    return create(
        "ran_e", pattern=str(Pattern.of(parts)), skeleton="six_28", num_classes=10,
        input_shape=(1, 1, size, size),
    )  # fmt: skip


class Device:
    """Charges a block by itself, by what precedes it and, a little, by what is far away."""

    def __init__(self, seed):
        draw = np.random.default_rng(seed)
        self.own = draw.integers(100, 1000, (5, WIDTH))
        self.pair = draw.integers(0, 100, (5, WIDTH, WIDTH))
        self.far = draw.integers(0, 3, (WIDTH, WIDTH))
        self.amounts = {"units": draw.integers(1, 10, (5, WIDTH)).tolist()}
        self.asked = []

    def charges(self, parts):
        row = [SPACE.choices[0].options.index(part) for part in parts]
        found = [self.own[i, o] + (self.pair[i, row[i - 1], o] if i else 0)
                 for i, o in enumerate(row)]  # fmt: skip
        found[-1] += self.far[row[0], row[-1]]
        return [float(charge) for charge in found]

    def units(self, parts):
        options = SPACE.choices[0].options
        return sum(self.amounts["units"][i][options.index(p)] for i, p in enumerate(parts))

    def compile_many(self, patterns):
        self.asked += patterns
        return [
            Compiled(p, sum(self.charges(p)) + 50.0, 1.0, tuple(self.charges(p)), {})
            for p in map(tuple, patterns)
        ]


@pytest.mark.parametrize("seed", range(4))
def test_the_cheapest_pattern_within_the_floor_is_found(seed):
    device = Device(seed)
    floor = 28
    found = search_pattern(SPACE, device.compile_many, device.amounts, {"units": floor}, EFFORT)
    every = itertools.product(*(choice.options for choice in SPACE))
    costs = {p: sum(device.charges(p)) + 50.0 for p in every if device.units(p) >= floor}
    assert device.units(found.best.parts) >= floor
    assert found.best.cycles == min(costs.values())
    assert len(set(device.asked)) == len(device.asked) < len(costs)
    assert found.next_predicted >= found.bound * (1 - 1e-6)
    assert found.errors


def test_known_patterns_count_and_are_not_compiled_again():
    device = Device(0)
    cheapest = min(
        itertools.product(*(c.options for c in SPACE)), key=lambda p: sum(device.charges(p))
    )
    known = device.compile_many([cheapest])
    found = search_pattern(
        SPACE, device.compile_many, device.amounts, {}, Effort(1, 2, 2, 2), known
    )
    assert found.best.parts == cheapest
    assert device.asked.count(cheapest) == 1


def test_equal_calls_ask_for_equal_patterns():
    first, second = Device(3), Device(3)
    for device in (first, second):
        search_pattern(SPACE, device.compile_many, device.amounts, {"units": 25}, EFFORT)
    assert first.asked == second.asked


def test_floors_out_of_reach_or_unknown_are_refused():
    device = Device(0)
    with pytest.raises(InfeasibleBudget):
        search_pattern(SPACE, device.compile_many, device.amounts, {"units": 10**6}, EFFORT)
    with pytest.raises(BadInput, match="no amounts of beauty"):
        search_pattern(SPACE, device.compile_many, device.amounts, {"beauty": 1}, EFFORT)


def test_amounts_of_blocks_add_up_to_the_network():
    space = pattern_space(6, (3, 5), (2, 4), (1, 2))
    amounts, rest = amounts_of(space, build, (1, 1, 28, 28))
    for seed in range(5):
        parts = tuple(space.sample(seed).values())
        net = build(parts).eval()
        workload = trace(net, torch.zeros(1, 1, 28, 28))
        true = {
            "units": non_linear_units(workload), "macs": workload.macs,
            "params": sum(p.numel() for p in net.parameters()),
        }  # fmt: skip
        for name, total in true.items():
            own = [a[c.options.index(p)]
                   for a, c, p in zip(amounts[name], space, parts, strict=True)]  # fmt: skip
            assert sum(own) + rest[name] == total, name


def test_a_compiled_pattern_is_charged_block_by_block():
    target = create_target("ethos-u55-128")
    parts = ("c", "i3x4", "f3x2", "c", "i3x2", "c")
    one = compile_pattern(target, build, parts, (1, 1, 28, 28))
    whole = target.cost(trace(build(parts).eval(), torch.zeros(1, 1, 28, 28))).total
    assert one.cycles == whole["cycles"]
    assert one.latency_ms == whole["latency_ms"]
    assert all(charge > 0 for charge in one.charges)
    assert sum(one.charges) < one.cycles
    assert one.amounts["macs"] == whole["macs"]


def test_targets_without_a_compiler_are_refused():
    with pytest.raises(BadInput, match="no compiler"):
        compile_pattern(create_target("analytic"), partial(build), ("c",) * 6, (1, 1, 28, 28))
