# SPDX-License-Identifier: Apache-2.0
"""SESR's training speed on a small setting, and the accounting behind it."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.run import QUICK
from benchmarks.sesr_training import (
    FORMS,
    collapse_macs,
    differences,
    forward_macs,
    main,
    networks,
    step_seconds,
)  # fmt: skip


def test_forms_start_equal_and_have_the_published_macs():
    nets = networks("sesr_m5", 64)
    assert list(nets) == list(FORMS)
    macs = {form: 32 * forward_macs(net, 64) + collapse_macs(net) for form, net in nets.items()}
    assert int(macs["expanded"] / 1e7) == 4177
    assert macs["plain"] == 1_772_093_440
    assert macs["collapsed"] - macs["plain"] == 256 * (16 * 25 + 5 * 16 * 16 * 9 + 16 * 4 * 25)
    assert collapse_macs(nets["plain"]) == collapse_macs(nets["expanded"]) == 0


def test_gradients_of_both_forms_are_equal():
    assert max(differences("sesr_m3", 2, 12, torch.float64)) < 1e-12
    assert max(differences("sesr_m3", 2, 12, torch.float32)) < 1e-4


def test_forms_take_turns_and_warm_up():
    turns = []
    steps = {form: lambda form=form: turns.append(form) for form in "abc"}
    times = step_seconds(steps, 4, 1)
    assert [len(t) for t in times.values()] == [4, 4, 4]
    rounds = [turns[i : i + 3] for i in range(0, 15, 3)]
    assert all(sorted(part) == ["a", "b", "c"] for part in rounds)
    assert len({tuple(part) for part in rounds}) > 1


def test_the_benchmark_writes_speeds_beside_macs(tmp_path):
    threads = torch.get_num_threads()
    try:
        assert main(["--out", str(tmp_path), *QUICK["sesr_training"]]) == 0
    finally:
        torch.set_num_threads(threads)
    tables = json.loads((tmp_path / "sesr_training.json").read_text())["tables"]
    speeds, equal = (table["rows"] for table in tables)
    assert [row["form"] for row in speeds] == list(FORMS)
    assert speeds[0]["times faster"]["median"] == speeds[0]["MACs x fewer"] == 1.0
    assert speeds[2]["MACs x fewer"] > speeds[1]["MACs x fewer"] > 10
    assert all(row["images a second"]["n"] == 2 for row in speeds)
    assert [row["type"] for row in equal] == ["float32", "float64"]
    assert equal[1]["gradients"] == pytest.approx(0, abs=1e-12)
