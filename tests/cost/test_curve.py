# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from torch import nn

from chipfit.cost.cost import Cost
from chipfit.cost.curve import (
    Cliff,
    WidthCurve,
    curve_of,
    find_cliffs,
    joined,
    sample_widths,
    touched_units,
)
from chipfit.graph import trace
from chipfit.graph.resize import resize
from chipfit.targets import create
from chipfit.targets.windows import neighbour_units


def test_a_staircase_has_a_cliff_behind_every_step():
    channels = list(range(1, 33))
    costs = [math.ceil(c / 8) for c in channels]
    expected = [Cliff(8, 9, 2.0), Cliff(16, 17, 1.5), Cliff(24, 25, 4 / 3)]
    assert find_cliffs(channels, costs) == expected


def test_a_straight_line_has_none():
    channels = list(range(40, 80))
    assert find_cliffs(channels, [1.0 * c for c in channels]) == []


def test_widths_that_are_no_neighbours_tell_of_falls_only():
    assert find_cliffs([8, 16], [1.0, 2.0]) == []
    assert find_cliffs([8, 16], [2.0, 1.0]) == [Cliff(8, 16, 0.5)]
    assert find_cliffs([15, 16], [2.0, 1.96]) == []  # within 5 %


def test_steps_within_the_spread_are_noise():
    assert find_cliffs([8, 9], [1.0, 1.2], [0.15, 0.15]) == []  # 0.2 < hypot(0.15, 0.15) = 0.21
    assert len(find_cliffs([8, 9], [1.0, 1.2], [0.1, 0.1])) == 1


@pytest.mark.parametrize(("present", "alignment"), [(96, 8), (20, 8), (3, 8), (1280, 16), (7, 1)])
def test_samples_hold_the_present_width_and_steps_with_their_neighbours(present, alignment):
    widths = sample_widths(present, alignment, 19)
    assert widths[0] == present
    assert len(widths) == len(set(widths)) <= 19
    assert min(widths) >= 1
    above = alignment * (present // alignment + 1)
    assert {above - 1, above, above + 1} <= set(widths)
    assert max(widths) == above + 1
    assert min(widths) >= present // 2 - 1 - alignment


def test_few_points_keep_what_is_nearest():
    assert sample_widths(96, 8, 4) == [96, 97, 95, 104]


class Bottleneck(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, width, 1), nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.c, self.d = nn.Conv2d(width, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x))))


def test_touched_operators_are_those_whose_shapes_change():
    present = trace(Bottleneck(), torch.zeros(1, 8, 6, 6))
    variants = {24: present, 16: resize(present, {"a": 16})}
    names, units = touched_units(present, variants, create("analytic"))
    assert names == ("a", "b", "c")
    assert [len(own) for own in units.values()] == [3, 3]
    touched = [unit.workload.nodes[0].op.output[1] for unit in units[16]]
    assert touched == [16, 16, 8]


def test_overlapping_windows_join_into_one_unit():
    present = trace(Bottleneck(), torch.zeros(1, 8, 6, 6))
    units = neighbour_units(present, (2, 1))
    unit = joined(units[:2])
    assert unit.indices == (0, 1, 2)  # what makes and what reads both
    assert unit.focus == (0, 1)
    assert joined(units[:2]).key == unit.key != joined(units[1:3]).key
    narrow = resize(present, {"a": 16})
    assert joined(neighbour_units(narrow, (2, 1))[:2]).key != unit.key


def test_a_curve_adds_up_what_is_known():
    present = trace(Bottleneck(), torch.zeros(1, 8, 6, 6))
    variants = {w: resize(present, {"a": w}) for w in (8, 16, 24)}
    names, units = touched_units(present, variants, create("analytic"))
    known = {
        unit.key: Cost({"latency_ms": float(width)}, "measured", {"latency_ms": 0.5})
        for width, own in units.items()
        for unit in own
        if width != 16
    }
    curve = curve_of("a", 24, names, units, known)
    assert curve is not None
    assert curve.channels == (8, 24)
    # The narrowest and the present width share no operator's shape: three operators each.
    assert curve.latency_ms == (24.0, 72.0)
    assert curve.spread_ms == pytest.approx((0.5 * 3**0.5,) * 2)
    assert curve.at(16) is None
    assert curve_of("a", 24, names, {24: units[24]}, known) is None


def test_a_curve_as_json():
    curve = WidthCurve("a", 9, (8, 9), (1.0, 2.0), (0.0, 0.0), ("a", "b"))
    assert curve.to_json()["cliffs"] == [{"channels": 8, "to": 9, "factor": 2.0}]
