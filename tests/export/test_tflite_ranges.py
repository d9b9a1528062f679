# SPDX-License-Identifier: Apache-2.0
"""Quantisation parameters: ranges, sharing between tensors, prescribed ones, weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tflite_programs import Builder

from chipfit.errors import BadInput, UnsupportedOp
from chipfit.export.tflite import synthetic_ranges, to_tflite
from chipfit.export.tflite.context import Context
from chipfit.export.tflite.convolution import weights
from chipfit.export.tflite.ir import TFTensor, quant_of_range, quantise
from chipfit.export.tflite.ranges import (
    SIGNED_UNIT,
    UNIT,
    Quantisation,
    is_same,
    same_padding,
    used_padding,
)
from chipfit.graph.op import Op, make_op

IMAGE = (1, 4, 8, 8)


def pool(size: int, kernel: int, stride: int, sides: tuple[int, int], out: int) -> Op:
    return make_op(
        "max_pool2d", [(1, 1, size, size)], (1, 1, out, out), kernel=(kernel, kernel),
        stride=(stride, stride), padding=(*sides, *sides),
    )  # fmt: skip


def test_range_becomes_codes() -> None:
    quant = quant_of_range(0.0, 25.5)
    assert quant.step == pytest.approx(0.1)
    assert quant.zero_point == -128
    assert quant_of_range(-1.0, -0.5).zero_point == 127
    assert quant_of_range(2.0, 5.1) == quant_of_range(0.0, 5.1)
    values = np.array([0.0, 0.1, 25.5, 99.0, -1.0])
    assert quantise(values, quant).tolist() == [-128, -127, 127, 127, -128]


def test_zero_is_exact_in_every_range() -> None:
    for low, high in [(-1.0, 3.0), (-0.37, 2.2), (-7.0, 0.001)]:
        quant = quant_of_range(low, high)
        assert quantise(np.zeros(1), quant)[0] == quant.zero_point


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "sides", "out", "same"),
    [
        (8, 3, 1, (1, 1), 8, True),
        (8, 3, 2, (1, 1), 4, False),
        (7, 3, 2, (1, 1), 4, True),
        (8, 3, 2, (0, 1), 4, True),
        (8, 2, 2, (0, 0), 4, True),
        (9, 2, 2, (0, 0), 4, False),
    ],
)
def test_same_is_recognised(
    size: int, kernel: int, stride: int, sides: tuple[int, int], out: int, same: bool
) -> None:
    assert is_same(pool(size, kernel, stride, sides, out)) is same


def test_rows_that_no_window_reaches_are_not_padded() -> None:
    assert used_padding(pool(8, 3, 2, (1, 1), 4)) == (1, 0, 1, 0)
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(8, 3, 1, dilation=2) == (2, 2)


def test_moved_values_keep_their_quantisation_and_concat_inputs_share_one() -> None:
    net = Builder(IMAGE)
    a, b = net.conv("x0", 4), net.conv("x0", 4)
    p = net.op("max_pool2d", a, IMAGE, kernel=(3, 3), stride=(1, 1), padding=(1,) * 4)
    c = net.op("concat", [p, b], (1, 8, 8, 8), axis=1)
    ranges = {"x0": (-1, 1), a: (-2, 1), b: (0, 5), p: (-1, 1), c: (-1, 5)}
    quants = Quantisation(net.build().workload, ranges)
    assert quants.of(a) == quants.of(b) == quants.of(p) == quants.of(c) == quant_of_range(-2, 5)
    assert quants.of("x0") == quant_of_range(-1, 1)


def test_prescribed_quantisations() -> None:
    net = Builder(IMAGE)
    s = net.op("activation", "x0", IMAGE, activation="sigmoid")
    t = net.conv("x0", 4, activation="tanh")
    m = net.op("softmax", "x0", IMAGE, axis=1)
    c = net.op("concat", [s, t], (1, 8, 8, 8), axis=1)
    quants = Quantisation(net.build().workload, synthetic_ranges(net.build().workload))
    assert (quants.of(s), quants.of(t), quants.of(m)) == (UNIT, SIGNED_UNIT, UNIT)
    assert quants.of(c) not in (UNIT, SIGNED_UNIT)


def test_flat_ends_of_an_activation_are_clipped_for_its_only_reader() -> None:
    net = Builder(IMAGE)
    a = net.conv("x0", 4, activation="hardswish")
    ranges = {"x0": (-1, 1), f"{a}:pre": (-40.0, 6.0), a: (-0.375, 6.0)}
    assert Quantisation(net.build().workload, ranges).of(f"{a}:pre") == quant_of_range(-3, 6)


def test_missing_and_infinite_ranges_are_refused() -> None:
    net = Builder(IMAGE)
    net.conv("x0", 4)
    with pytest.raises(BadInput, match="no range for tensor 't0'"):
        to_tflite(net.build(), {"x0": (-1, 1)})
    with pytest.raises(BadInput, match="range of tensor 'x0'"):
        to_tflite(net.build(), {"x0": (-np.inf, 1), "t0": (0, 1)})


def test_a_divisor_that_may_be_zero_is_refused() -> None:
    net = Builder(IMAGE, IMAGE)
    net.op("div", ["x0", "x1"], IMAGE)
    ranges = {"x0": (-1, 1), "x1": (-1, 1), "t0": (-9, 9)}
    with pytest.raises(UnsupportedOp, match="n0: div"):
        to_tflite(net.build(), ranges)


def test_weights_have_one_scale_per_channel_and_biases_fit() -> None:
    ctx = Context(Builder(IMAGE).build("x0"), {})
    source = TFTensor("s", IMAGE, quant_of_range(-1.0, 1.55))
    weight = np.array([[1.27, -0.5], [1e-12, 0.0], [2.54, 2.54]]).reshape(3, 1, 1, 2)
    codes, bias = weights(ctx, "w", weight, np.array([0.01, 300.0, -0.02]), source, 0)
    assert codes.quant is not None
    assert codes.data is not None
    assert bias.quant is not None
    assert bias.data is not None
    assert codes.data[0].ravel().tolist() == [127, -50]
    assert codes.quant.scale[0] == pytest.approx(0.01)
    assert codes.quant.scale[2] == pytest.approx(0.02)
    restored = bias.data * np.array(bias.quant.scale)
    np.testing.assert_allclose(restored, [0.01, 300.0, -0.02], atol=2e-4, rtol=1e-6)


def test_synthetic_ranges_are_deterministic_and_differ() -> None:
    net = Builder(IMAGE)
    for _ in range(4):
        net.conv(f"t{len(net.nodes) - 1}" if net.nodes else "x0", 4, activation="relu6")
    load = net.build().workload
    first = synthetic_ranges(load)
    assert first == synthetic_ranges(load)
    tops = [first[f"t{i}"][1] for i in range(4)]
    assert len(set(tops)) == 4
    assert all(first[f"t{i}"][0] == 0.0 for i in range(4))
    assert to_tflite(net.build(), first).data == to_tflite(net.build(), first).data


def test_constants_take_their_own_range() -> None:
    net = Builder((1, 3))
    net.op("add", ["x0", net.constant(torch.tensor([0.0, 100.0, -50.0]))], (1, 3))
    ctx = Context(net.build(), {"x0": (-1, 1), "t0": (-60, 110)})
    constant = ctx.operand(ctx.workload.nodes[0], 1, (0, 1))
    assert constant.shape == (1, 3)
    assert constant.quant == quant_of_range(-50.0, 100.0)
