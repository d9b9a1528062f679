# SPDX-License-Identifier: Apache-2.0
"""Orders of stored axes: every plan is checked by moving real data with NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from chipfit.export.tflite.layout import (
    NHWC,
    channels_last,
    groups,
    permutation,
    reshaped_orders,
    same_memory,
    stored,
)

RESHAPES = [
    ((2, 6, 4, 5), (2, 120)),
    ((2, 6, 4, 5), (2, 6, 20)),
    ((2, 6, 4, 5), (2, 2, 3, 4, 5)),
    ((2, 6, 4, 4), (2, 6, 2, 2, 2, 2)),
    ((2, 6, 1, 1), (2, 6)),
    ((2, 6), (2, 6, 1, 1)),
    ((2, 6, 4, 5), (2, 8, 3, 5)),
    ((2, 12, 1, 5), (2, 3, 1, 4, 5)),
]


@pytest.mark.parametrize(("before", "after"), RESHAPES)
def test_a_planned_reshape_equals_pytorchs(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    data = np.arange(math.prod(before)).reshape(before)
    for tail in itertools.permutations(range(1, len(before))):
        order = (0, *tail)
        source, target = reshaped_orders(before, after, order)
        memory = data.transpose(order).transpose(permutation(order, source))
        result = memory.reshape(stored(after, target))
        inverse = [target.index(axis) for axis in range(len(after))]
        assert np.array_equal(result.transpose(inverse), data.reshape(after))


def test_tokens_of_an_image_need_no_data_moved() -> None:
    source, target = reshaped_orders((1, 8, 4, 5), (1, 8, 20), NHWC)
    assert source == NHWC
    assert target == (0, 2, 1)


def test_pooled_channels_flatten_in_place() -> None:
    source, _ = reshaped_orders((1, 8, 1, 1), (1, 8), NHWC)
    assert same_memory((1, 8, 1, 1), NHWC, source)
    assert not same_memory((1, 8, 2, 1), NHWC, (0, 1, 2, 3))


def test_groups_are_minimal() -> None:
    assert groups((1, 6, 4, 4), (1, 2, 3, 16)) == [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    assert groups((1, 6, 1, 1), (1, 6)) == [([0], [0]), ([1], [1]), ([2], []), ([3], [])]


def test_channels_last() -> None:
    assert [channels_last(rank) for rank in (2, 3, 4)] == [(0, 1), (0, 2, 1), NHWC]
