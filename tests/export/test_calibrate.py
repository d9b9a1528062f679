# SPDX-License-Identifier: Apache-2.0
"""Histograms and the ranges that calibration methods choose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tflite_programs import Builder, batch

from chipfit.errors import BadInput
from chipfit.export.tflite import calibrate
from chipfit.export.tflite.calibrate import Histogram


def test_counts_survive_a_growing_range() -> None:
    histogram = Histogram()
    small = torch.linspace(-0.9, 0.9, 500)
    histogram.add(small)
    histogram.add(torch.tensor([-30.0, 7.0]))
    assert (histogram.low, histogram.high) == (-30.0, 7.0)
    assert histogram.counts.sum() == 502
    edges = np.linspace(-histogram.reach, histogram.reach, 4097)
    inside = histogram.counts[(edges[:-1] >= -0.95) & (edges[1:] <= 0.95)].sum()
    assert inside == 500


def test_percentile_drops_one_value_in_ten_thousand() -> None:
    histogram = Histogram()
    values = torch.linspace(0.0, 1.0, 100_000)
    values[-1] = 50.0
    histogram.add(values)
    low, high = histogram.range("percentile")
    assert low == 0.0
    assert 0.99 < high < 1.05
    assert histogram.range("minmax") == (0.0, 50.0)


def test_few_values_are_not_clipped() -> None:
    histogram = Histogram()
    histogram.add(torch.tensor([-2.0, 0.5, 3.0]))
    low, high = histogram.range("percentile")
    assert low == pytest.approx(-2.0, abs=0.01)
    assert high == pytest.approx(3.0, abs=0.01)


def test_mse_gives_a_smaller_error_than_minmax() -> None:
    values = torch.cat([torch.randn(50_000, generator=torch.Generator().manual_seed(0)),
                        torch.tensor([20.0])])  # fmt: skip
    histogram = Histogram()
    histogram.add(values)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        rounded = ((values.clamp(low, high) - low) / step).round() * step + low
        return float(((rounded - values) ** 2).mean())

    assert error(*histogram.range("mse")) < error(*histogram.range("minmax"))


def test_a_tensor_of_zeros_has_a_range() -> None:
    histogram = Histogram()
    histogram.add(torch.zeros(10))
    for method in ("minmax", "percentile", "mse"):
        low, high = histogram.range(method)
        assert low <= 0.0 <= high


def test_inputs_and_outputs_keep_their_extremes_over_batches() -> None:
    net = Builder((1, 3))
    net.op("linear", "x0", (1, 2), bias=False)
    program = net.build()
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(1))
    ranges = calibrate(program, [x[:10_000], x[10_000:]])
    y = x @ program.parameters["n0"]["weight"].T
    assert ranges["x0"] == (x.min().item(), x.max().item())
    assert ranges["t0"] == pytest.approx((y.min().item(), y.max().item()), rel=1e-5)


def test_layer_norm_parts_are_calibrated() -> None:
    net = Builder((1, 5, 8))
    net.op("layer_norm", "x0", (1, 5, 8), axes=(2,), eps=1e-3, affine=False)
    program = net.build()
    (x,) = batch(program, 6)
    ranges = calibrate(program, [(x,)], "minmax")
    mean, variance = x.mean(2), x.var(2, unbiased=False)
    lowest = variance.min().item()
    assert ranges["t0:mean"] == pytest.approx((mean.min().item(), mean.max().item()), abs=1e-6)
    assert ranges["t0:var"] == pytest.approx((lowest, variance.max().item()), rel=1e-5)
    assert ranges["t0:rstd"][1] == pytest.approx(1 / math.sqrt(lowest + 1e-3), rel=1e-5)
    assert ranges["t0:unit"] == pytest.approx(ranges["t0"], rel=1e-4)


def test_calibration_is_deterministic_and_names_what_is_wrong() -> None:
    net = Builder((1, 4, 6, 6))
    net.conv("x0", 4, activation="hardswish")
    program = net.build()
    inputs = batch(program)
    assert calibrate(program, [inputs]) == calibrate(program, [inputs])
    assert "t0:pre" in calibrate(program, [inputs])
    with pytest.raises(BadInput, match="no calibration batch"):
        calibrate(program, [])
    with pytest.raises(BadInput, match="unknown calibration method 'best'"):
        calibrate(program, [inputs], "best")
    inputs[0][0, 0, 0, 0] = math.nan
    with pytest.raises(BadInput, match="'x0' holds infinities or NaN"):
        calibrate(program, [inputs])
