# SPDX-License-Identifier: Apache-2.0
"""The microcontroller benchmark: what it starts from, what it keeps, what its table says."""

import json

import pytest
import torch

import chipfit as cf
from benchmarks.mcu_budgets import main, table
from benchmarks.mcu_contest import BOUNDS, MAGNITUDE, MCU, UNIFORM
from benchmarks.mcu_widths import GlobalMagnitude, residual_network
from chipfit.cost.budget import Budget
from chipfit.graph.capture import trace

pytest.importorskip("tflite_micro")
pytest.importorskip("ethosu")
LARGE, SMALL = BOUNDS


def test_the_original_is_too_large_for_every_bound():
    target = cf.target("cortex-m4")
    with torch.device("meta"):
        net = residual_network(32, 1, 10).eval()
    cost = target.cost(trace(net, torch.zeros(1, 1, 28, 28, device="meta"))).total
    budget = Budget.parse(BOUNDS[LARGE])
    assert set(budget.excess(cost)) == {"peak_sram_bytes", "flash_bytes", "macs"}
    assert set(Budget.parse(BOUNDS[SMALL]).limits) == {"peak_sram_bytes", "flash_bytes"}


def row(name, int8, arena=1000):
    cost = {"peak_sram_bytes": arena, "flash_bytes": 20_000, "macs": 10_000, "latency_ms": 1.0}
    return {"name": name, "images": 10, "before": 5, "val": 0.5, "test": 0.5, "int8_test": int8,
            "cost": cost, "how": ""}  # fmt: skip


def test_the_table_says_who_is_within_and_how_far_behind_mcu():
    results = {
        (SMALL, MCU): [row(MCU, 0.8), row(MCU, 0.9), row(MCU, 0.85)],
        (SMALL, UNIFORM): [row(UNIFORM, 0.7)] * 3,
        (SMALL, MAGNITUDE): [row(MAGNITUDE, 0.7), row(MAGNITUDE, 0.7, arena=17_000)],
    }
    original, mcu, uniform, magnitude = table(row("original", 0.95, arena=90_000), results)
    assert original["within"] is None and original["bounds"] == ""
    assert mcu["within"] and uniform["within"] and not magnitude["within"]
    assert mcu["int8 - mcu"] == 0 and uniform["int8 - mcu"] == pytest.approx(-0.15)
    assert mcu["images"] == 15 and mcu["int8 test"]["max"] == 0.9


def test_a_kept_result_is_not_made_again(tmp_path, capsys):
    arguments = [
        "--data", "digits", "--width", "8", "--original-steps", "2", "--search-steps", "2",
        "--search-batch", "16", "--recovery-steps", "1", "--seeds", "1", "--bounds", SMALL,
        "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(arguments) == 0
    files = sorted((tmp_path / "store").rglob("result.json"))
    assert len(files) == 4
    times = [file.stat().st_mtime_ns for file in files]
    assert main(arguments) == 0
    assert times == [file.stat().st_mtime_ns for file in files]
    rows = json.loads((tmp_path / "out" / "mcu_budgets.json").read_text())["tables"][0]["rows"]
    assert [r["network"] for r in rows] == ["original", MCU, UNIFORM, MAGNITUDE]
    assert all(r["within"] for r in rows[1:])
    assert len({r["images"] for r in rows[1:]}) <= 2


def test_global_magnitude_removes_the_smallest_filters_of_all_groups():
    net = residual_network(8, 1, 10).eval()
    with torch.no_grad():
        net[1].first[0].weight[2:] *= 0.01
    ladder = GlobalMagnitude(net, torch.zeros(1, 1, 8, 8), 2)
    whole, least = ladder.widths(len(ladder) - 1), ladder.widths(0)
    assert whole == {"0.0": 8, "1.first.0": 8, "2.first.0": 16, "2.second.0": 16,
                     "3.first.0": 32, "3.second.0": 32}  # fmt: skip
    assert set(least.values()) == {2}
    few = ladder.widths(round(len(ladder) * 0.94))  # 6 % of 112 channels
    assert few["1.first.0"] == 2 and {**few, "1.first.0": 8} == whole
    assert ladder[0][3].second[0].out_channels == 2
