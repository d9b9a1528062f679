# SPDX-License-Identifier: Apache-2.0
"""Entropy, share of skips, the rule of collapse and the line of progress."""

import doctest
import math

import pytest
import torch

from chipfit.errors import BadInput
from chipfit.supernet import monitor
from chipfit.supernet.monitor import collapsed, mean_entropy, search_line, skip_share


def test_entropy_is_one_at_uniform_and_zero_when_decided():
    assert mean_entropy({"a": [0.25] * 4, "b": [1 / 3] * 3}) == pytest.approx(1.0, abs=1e-15)
    assert mean_entropy({"a": [0.0, 1.0, 0.0], "b": [1.0, 0.0]}) == 0.0
    assert mean_entropy({}) == mean_entropy({"only": [1.0]}) == 0.0


def test_entropy_is_the_mean_over_choices_of_each_ones_own():
    binary = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    found = mean_entropy({"a": [0.1, 0.9], "b": [0.5, 0.5, 0.0, 0.0], "one": [1.0]})
    assert found == pytest.approx((binary + 0.5) / 2, abs=1e-15)


def test_tensors_are_probabilities_too():
    logits = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    p = torch.softmax(logits, 0)
    exact = float(torch.distributions.Categorical(logits=logits).entropy()) / math.log(3)
    assert mean_entropy({"a": p}) == pytest.approx(exact, abs=1e-14)
    assert mean_entropy({"a": torch.full((7,), 1 / 7)}) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("row", [[0.5, 0.6], [0.2, 0.2], [-0.1, 1.1], [math.nan, 1.0]])
def test_what_is_no_distribution_is_refused(row):
    with pytest.raises(BadInput, match="choice gate"):
        mean_entropy({"gate": row})


def test_skip_share_counts_only_choices_that_offer_a_skip():
    probabilities = {"a": [0.2, 0.8], "b": [0.7, 0.2, 0.1], "c": [0.4, 0.6]}
    names = {"a": ["k3", "skip"], "b": ["k3", "skip_connect", "none"], "c": ["k3", "k5"]}
    assert skip_share(probabilities, names) == pytest.approx((0.8 + 0.3) / 2, abs=1e-15)
    assert skip_share({"c": [0.4, 0.6]}, names) is None
    with pytest.raises(BadInput, match="choice a has 2 probabilities and 3"):
        skip_share({"a": [0.2, 0.8]}, {"a": ["k3", "k5", "skip"]})
    with pytest.raises(BadInput, match="0 operations"):
        skip_share({"a": [0.2, 0.8]}, {})


@pytest.mark.parametrize(
    ("history", "verdict"),
    [
        ([0.1 + 0.05 * i for i in range(16)], True),
        ([0.3] + [0.9] * 15, True),
        ([0.9] * 16, False),
        ([0.501, 0.502] * 8, False),
        ([0.45] + [0.54] * 9, False),
        ([0.45] + [0.56] * 9, True),
        ([0.5] * 16, False),
        ([0.05 * i for i in range(10)], False),
        ([0.9 - 0.02 * i for i in range(16)], False),
        ([0.2, 0.3, 0.9], False),
        ([0.2, 0.3, 0.6, 0.9], True),
        ([0.2, 0.3, 0.9, 0.6], False),
        ([0.1] * 14 + [0.9, 0.49], False),
        ([], False),
    ],
)
def test_collapse_is_more_than_half_and_not_falling(history, verdict):
    assert collapsed(history) is verdict


def test_one_outlier_does_not_hide_a_collapse():
    history = [0.2] * 24 + [0.60, 0.62, 0.64, 0.66, 0.70, 0.72, 0.74, 0.71]
    assert collapsed(history)


def test_the_line_tells_what_the_event_holds():
    line = search_line(
        {"event": "search", "method": "fbnet", "step": 120, "steps": 600, "loss": 1.9,
         "val_loss": 1.8, "val_accuracy": 0.41, "expected": {"latency_ms": 0.71, "macs": 1.2e6},
         "budget": {"latency_ms": 0.6}, "entropy": 0.834, "temperature": 1.3, "skip_share": 0.1,
         "collapsing": True}
    )  # fmt: skip
    assert line == (
        "step 120/600: loss 1.900, validation loss 1.800, accuracy 41.0%, "
        "expected latency_ms 0.71 (budget 0.6, +18.3%), expected macs 1.2e+06, entropy 0.83, "
        "temperature 1.3, skips 0.10, skips are taking over"
    )
    assert search_line({"step": 3}) == "step 3"
    assert search_line({"step": 3, "val_psnr_db": 31.25, "val_loss": 0.5}) == (
        "step 3: validation loss 0.500, psnr db 31.25"
    )
    assert search_line({"step": 3, "steps": 9, "entropy": None, "expected": {}}) == "step 3/9"
    assert search_line({"step": 1, "expected": {"x": 2.0}, "budget": {"x": 0}}) == (
        "step 1: expected x 2 (budget 0)"
    )


def test_the_example_of_the_documentation_is_true():
    assert doctest.testmod(monitor).attempted == 1
    assert doctest.testmod(monitor).failed == 0
