# SPDX-License-Identifier: Apache-2.0
"""The sampler of random networks, rank correlations, and the benchmark on its smallest setting."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import prediction_error, vectorised
from benchmarks.random_networks import (
    BAND_MACS,
    FAMILIES,
    draw,
    equal_macs_networks,
    workload_of,
)
from benchmarks.ranking import kendall, spearman
from benchmarks.run import QUICK
from benchmarks.truth import Truth
from chipfit.cost.table import CostTable
from chipfit.flow import calibration
from chipfit.targets import create


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_are_random_but_always_the_same(family):
    assert draw(family, 3) == draw(family, 3) != draw(family, 4)
    sizes = {draw(family, seed).size for seed in range(40)}
    assert min(sizes) == 96 and max(sizes) == 224
    odd = [any(s.width % 8 for s in draw(family, seed).stages) for seed in range(40)]
    assert 2 < sum(odd) < 25


def test_networks_on_an_npu_have_no_layer_norm():
    recipe = draw("convnext", 3)
    plain, npu = workload_of(recipe), workload_of(recipe, npu=True)
    assert plain.macs == npu.macs
    assert any(node.op.kind == "layer_norm" for node in plain.nodes)
    assert {node.op.kind for node in npu.nodes} == {"conv2d", "add", "mean", "reshape", "linear"}


def test_the_band_is_narrow():
    (recipe,) = equal_macs_networks(1, families=["ran"])
    assert abs(workload_of(recipe).macs / BAND_MACS - 1) <= 0.05


def test_rank_correlations():
    assert kendall([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall([4, 3, 2, 1], [10, 20, 30, 40]) == -1
    assert kendall([1, 3, 2, 4], [1, 2, 3, 4]) == pytest.approx(4 / 6)
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)
    assert spearman([1, 3, 2, 4], [1, 2, 3, 4]) == pytest.approx(0.8)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(3**0.5 / 2)
    assert kendall([1, 2], [1, 2]) is None and spearman([5, 5, 5], [1, 2, 3]) is None


def test_the_benchmark_runs_and_continues(tmp_path, monkeypatch):
    pytest.importorskip("ethosu")
    small = (("tiny_mobilenet_v2", 28, 1.0), ("tiny_mobilenet_v2", 20, 1.0))
    monkeypatch.setattr(calibration, "COMPILED", small)
    arguments = [*QUICK["prediction_error"], "--store", str(tmp_path / "s"), "--out", str(tmp_path)]
    assert prediction_error.main(arguments) == 0

    def never(*_):
        raise AssertionError("costed again")

    monkeypatch.setattr(type(create("ethos-u55-128")), "cost", never)
    monkeypatch.setattr(type(create("ethos-u55-128")), "cost_units", never)
    assert prediction_error.main(arguments) == 0
    data = json.loads((tmp_path / "prediction_error.json").read_text())
    errors, times = (table["rows"] for table in data["tables"])
    assert {row["predictor"] for row in errors} == {
        "chipfit", "MACs x one factor", "isolated operators",
    }  # fmt: skip
    assert all(row["worst %"] >= row["MAPE %"] >= abs(row["bias %"]) for row in errors)
    assert min(errors, key=lambda row: row["MAPE %"])["predictor"] == "chipfit"
    assert times[0]["units priced now"] == 0 and times[0]["queries/s"] > 0


def test_truth_is_measured_once(tmp_path, monkeypatch):
    target = create("ethos-u55-128")
    workload = vectorised.build({c.name: c.options[0] for c in vectorised.SPACE})
    first = Truth(tmp_path, target).of([workload], lambda line: None)
    monkeypatch.setattr(type(target), "cost_many", None)
    assert Truth(tmp_path, target).of([workload, workload], lambda line: None) == first * 2
    assert first[0].latency_ms > 0 == first[0].half_width_ms
    assert CostTable(tmp_path / "other").facts(target.fingerprint) == {}
