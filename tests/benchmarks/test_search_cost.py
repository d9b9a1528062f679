# SPDX-License-Identifier: Apache-2.0
"""The cost of a search step on a small setting: what grows with the candidates and what does not."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.run import QUICK
from benchmarks.search_cost import FLAT, WITHIN, main, summary
from benchmarks.search_forms import (
    PLAIN,
    REFERENCES,
    RELAXATIONS,
    WINDOWS,
    Chain,
    Stacked,
    forms,
    space_of_widths,
    widths,
)  # fmt: skip
from chipfit.errors import BadInput
from chipfit.supernet.memory import saved_activation_bytes
from chipfit.supernet.mixture import Softmax
from chipfit.supernet.supernet import Supernet
from chipfit.train.randomness import generator


def test_no_candidate_is_wider_than_the_network_that_all_are_compared_with():
    assert widths(64, 2) == [48, 64]
    assert widths(144, 16)[0] == 108 and widths(144, 16)[-1] == 144
    for wrong in (1, 18):
        with pytest.raises(BadInput):
            widths(64, wrong)


def test_activations_are_flat_for_gates_and_windows_and_linear_where_all_paths_run():
    given = argparse.Namespace(batch=2, size=8, channels=8, hidden=64, layers=2, seed=0)
    held = {}
    for count in (2, 8):
        for name, (net, step) in forms(given, count).items():
            held[name, count] = saved_activation_bytes(step, net)
    assert held[PLAIN, 2] == held[PLAIN, 8]
    for name in FLAT:
        assert max(held[name, 2], held[name, 8]) < WITHIN * held[PLAIN, 2]
    for name in [*list(RELAXATIONS)[:2], *REFERENCES]:
        # Candidates are on average 7/8 of the plain network.
        assert held[name, 8] == pytest.approx(4 * held[name, 2], rel=0.05)
        assert held[name, 8] > 6 * held[PLAIN, 8]
    assert held["bi-path, first window (PruNet)", 2] == held["bi-path, first window (PruNet)", 8]


def test_the_reference_computes_what_the_mixed_operation_computes():
    net = Chain(8, 64, 1)
    supernet = Supernet(net, space_of_widths(net, 8, 64, 3), seed=0)
    supernet.draw(Softmax(), 1.0, generator(0))
    operation = supernet.operation("blocks.0")
    stacked = Stacked(list(operation.candidates), drawn=False)
    with torch.no_grad():
        stacked.alpha.copy_(supernet.logits("blocks.0"))
    x = torch.randn(2, 8, 5, 5)
    assert torch.allclose(stacked(x), operation(x), atol=1e-6)


def test_the_quick_setting_runs_and_continues_from_its_store(tmp_path, monkeypatch):
    arguments = [*QUICK["search_cost"][:-1], str(tmp_path / "store"), "--out", str(tmp_path)]
    assert main(arguments) == 0
    first = json.loads((tmp_path / "search_cost.json").read_text())
    assert main(arguments) == 0  # from the store: equal to the last digit, times included
    again = json.loads((tmp_path / "search_cost.json").read_text())
    assert again["tables"] == first["tables"]
    names = {row["relaxation"] for row in first["tables"][0]["rows"]}
    assert names == {PLAIN, *RELAXATIONS, *WINDOWS, *REFERENCES}
    rows = {row["relaxation"]: row for row in first["tables"][-1]["rows"]}
    assert rows["bi-path, first window (PruNet)"][f"bytes within {WITHIN}"]
    assert not rows["softmax (DARTS)"][f"bytes within {WITHIN}"]
    assert set(rows) == names - {PLAIN}
    assert (
        summary({2: first["tables"][0]["rows"], 4: first["tables"][1]["rows"]})[0]
        == rows["softmax (DARTS)"]
    )
