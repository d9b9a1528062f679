# SPDX-License-Identifier: Apache-2.0
"""Affine maps in a row and side by side against running them one after the other, in float64."""

import itertools
import random

import pytest
import torch
import torch.nn.functional as F

from chipfit.rewrite.collapse import Affine, add, compose, concat

F64 = torch.float64


def run(one, x):
    axes = len(one.stride)
    if not axes:
        return F.linear(x, one.weight, one.bias)
    sides = [s for pair in zip(one.before[::-1], one.after[::-1]) for s in pair]
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[axes]
    return conv(F.pad(x, sides), one.weight, one.bias, one.stride, 0, one.dilation, one.groups)


def draw(
    channels, out, kernel, stride=1, dilation=1, before=0, after=None, groups=1, bias=True, axes=2
):
    weight = torch.randn(out, channels // groups, *[kernel] * axes, dtype=F64)
    shift = torch.randn(out, dtype=F64) * bias
    after = before if after is None else after
    sides = [(value,) * axes for value in (stride, dilation, before, after)]
    return Affine(weight, shift, *sides, groups)


def fits(one, x):
    sides = zip(x.shape[2:], one.before, one.after, one.extent)
    return all(size + before + after >= extent for size, before, after, extent in sides)


def check_compose(first, second, size):
    """Where a composition is given it is exact; where none is, the two really differ."""
    x = torch.randn(2, first.in_channels, *[size] * len(first.stride), dtype=F64)
    if not fits(first, x):
        return None
    y = run(first, x)
    if not fits(second, y):
        return None
    expected = run(second, y)
    merged = compose(first, second)
    if merged is None:
        return False
    found = run(merged, x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    return True


@pytest.mark.parametrize("seed", range(2))
def test_sequences_of_any_geometry(seed):
    torch.manual_seed(seed)
    draw_one = random.Random(seed)
    merged = 0
    for _ in range(120):
        c, m, o = (draw_one.choice([2, 4, 6]) for _ in range(3))
        groups = [draw_one.choice([g for g in (1, 2, c, m, o) if a % g == 0 == b % g])
                  for a, b in ((c, m), (m, o))]  # fmt: skip
        k1, k2, s1, s2 = (draw_one.choice([1, 2, 3, 5]), draw_one.choice([1, 2, 3]),
                          draw_one.choice([1, 1, 2, 3]), draw_one.choice([1, 2]))  # fmt: skip
        d1, d2 = draw_one.choice([1, 2, 3]), draw_one.choice([1, 2])
        first = draw(c, m, k1, s1, d1, draw_one.choice([0, 0, 1, 4]), draw_one.choice([0, 1, 4]),
                     groups[0], bias=draw_one.random() < 0.5)  # fmt: skip
        second = draw(
            m, o, k2, s2, d2, draw_one.choice([0, 0, 1]), draw_one.choice([0, 0, 2]), groups[1]
        )
        merged += bool(check_compose(first, second, draw_one.randint(9, 16)))
    assert merged > 50


@pytest.mark.parametrize("size", range(6, 12))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_strided_1x1_without_bias_before_a_padded_convolution(size, stride):
    first, second = draw(3, 4, 1, stride, bias=False), draw(4, 2, 3, before=1)
    assert check_compose(first, second, size)


def test_what_pads_a_tensor_with_a_bias_is_left_alone_because_the_borders_differ():
    first, second = draw(3, 4, 1), draw(4, 2, 3, before=1)
    assert compose(first, second) is None
    x = torch.randn(1, 3, 8, 8, dtype=F64)
    inside = compose(first, draw(4, 2, 3))
    assert inside is not None
    wrong = run(
        Affine(
            *(getattr(inside, n) for n in ("weight", "bias", "stride", "dilation")), (1, 1), (1, 1)
        ),
        x,
    )
    right = run(second, run(first, x))
    assert not torch.allclose(wrong, right)


def test_a_kernel_that_does_not_read_beyond_its_own_padding_is_exact_without_bias():
    first, second = draw(3, 4, 3, before=2, bias=False), draw(4, 2, 3, before=1)
    assert check_compose(first, second, 7)
    assert check_compose(draw(3, 4, 3, before=1, bias=False), second, 7) is False


@pytest.mark.parametrize("axes", [0, 1, 3])
def test_any_number_of_axes(axes):
    kernel = (3,) * axes
    assert check_compose(draw(4, 6, 3, axes=axes), draw(6, 2, 1, axes=axes), 6)
    one = compose(draw(4, 6, 3, axes=axes), draw(6, 2, 1, axes=axes))
    assert one.kernel == kernel


def test_depthwise_as_dense_and_groups_stay_where_they_can():
    depthwise, dense = draw(6, 6, 3, before=1, groups=6), draw(6, 4, 1)
    assert check_compose(depthwise, dense, 8)
    assert compose(depthwise, dense).groups == 1
    assert compose(depthwise, draw(6, 6, 1, groups=6)).groups == 6
    assert compose(draw(6, 6, 3, groups=3), draw(6, 6, 1, groups=2)).groups == 1
    assert check_compose(draw(12, 12, 3, groups=6), draw(12, 12, 1, groups=4), 8)
    assert compose(draw(12, 12, 3, groups=6), draw(12, 12, 1, groups=4)).groups == 2


@pytest.mark.parametrize("seed", range(3))
def test_sums_and_concatenations_of_kernels_of_any_size(seed):
    torch.manual_seed(seed)
    draw_one = random.Random(seed)
    for stride, size in itertools.product([1, 2], range(8, 13)):
        parts = []
        for _ in range(3):
            k, d = draw_one.choice([1, 2, 3, 5]), draw_one.choice([1, 2])
            span = (k - 1) * d
            before = draw_one.randint(0, span)
            parts.append(
                draw(4, 4, k, stride, d, before, span - before, draw_one.choice([1, 2, 4]))
            )
        x = torch.randn(2, 4, size, size, dtype=F64)
        each = [run(part, x) for part in parts]
        torch.testing.assert_close(run(add(parts), x), sum(each), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(
            run(concat(parts), x), torch.cat(each, 1), rtol=1e-11, atol=1e-11
        )


def test_identity_and_1x1_join_a_3x3_without_making_it_larger():
    one = add([Affine.identity(4, 2), draw(4, 4, 1), draw(4, 4, 3, before=1)])
    assert one.kernel == (3, 3) and one.before == one.after == (1, 1)
    assert add([Affine.identity(4, 2), draw(4, 4, 3, before=1, groups=4)]).groups == 4


def test_maps_of_other_strides_or_sizes_do_not_add():
    assert add([draw(4, 4, 1, 2), draw(4, 4, 1)]) is None
    assert add([draw(4, 4, 3), draw(4, 4, 1)]) is None
