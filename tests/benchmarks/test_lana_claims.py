"""LANA's claims on a small setting, and the plainer ways to choose that it is compared with."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.lana_choices import drawn_rows, greedy_row, random_rows, total  # noqa: E402
from benchmarks.lana_claims import main, solver_row  # noqa: E402
from benchmarks.run import QUICK  # noqa: E402
from chipfit.allocate import brute_force  # noqa: E402

COSTS = np.array([[4.0, 2.0, 1.0], [4.0, 3.0, 0.5], [2.0, 1.9, 1.0]])
VALUES = [np.array([0.0, -0.2, -0.9]), np.array([0.0, 0.1, -0.5]), np.array([0.0, -np.inf, -3.0])]


def cost(codes):
    return sum(COSTS[c][codes[:, c]] for c in range(3))


def test_greedy_takes_what_lowers_the_loss_and_then_the_best_rates():
    assert greedy_row(cost, VALUES, 10.0) == [0, 0, 0]
    assert greedy_row(cost, VALUES, 9.0) == [0, 1, 0]  # it lowers the loss
    assert greedy_row(cost, VALUES, 7.0) == [1, 1, 0]  # 0.2 for 2
    assert greedy_row(cost, VALUES, 0.1) is None
    best = brute_force(VALUES, [list(COSTS)], [4.6])
    row = greedy_row(cost, VALUES, 4.6)
    assert cost(np.array([row]))[0] <= 4.6
    assert total(VALUES, row) <= best.value


def test_random_ones_are_within_the_budget_and_of_what_was_trained():
    rows = random_rows(cost, VALUES, 6.0, 5, 0)
    assert len(rows) == 5
    assert (cost(np.array(rows)) <= 6.0).all()
    assert all(row[2] != 1 for row in rows)
    drawn = drawn_rows(VALUES, 8, 0)
    assert len({tuple(row) for row in drawn}) == 8
    assert all(any(row) and row[2] != 1 for row in drawn)


def test_the_solver_is_timed_on_a_size():
    row = solver_row(5, 4, 2)
    assert row["architectures"] == "10^3"
    assert row["proven optimal"] == "2 of 2"
    assert row["largest gap"] == 0


def test_the_whole_benchmark_and_again_from_its_store(tmp_path):
    arguments = ["--out", str(tmp_path), *QUICK["lana_claims"], "--workers", "1"]
    arguments[arguments.index("--store") + 1] = str(tmp_path / "store")
    found = []
    for _ in range(2):
        assert main(arguments) == 0
        found.append(json.loads((tmp_path / "lana_claims.json").read_text())["tables"])
    tables = {table["title"]: table["rows"] for table in found[1]}
    assert list(tables) == [
        "teachers and their replacements", "do scores add up?",
        "the same work spent on what each chose", "every network", "solve time",
    ]  # fmt: skip
    assert tables["do scores add up?"][0]["networks"] == 4
    rows = tables["every network"]
    assert [row["way"] for row in rows] == ["integer programme", "greedy", "random 1"]
    assert all(row["cost %"] <= 50 + 1e-9 for row in rows)
    assert rows[0]["sum of scores"] <= min(row["sum of scores"] for row in rows) + 1e-9
    assert len({row["images"] for row in rows}) == 1
    first = {table["title"]: table["rows"] for table in found[0]}
    for title in ("do scores add up?", "teachers and their replacements"):
        assert tables[title] == first[title]


def test_settings_out_of_range_are_refused(tmp_path, capsys):
    for wrong in (["--seeds", "0"], ["--budgets", "120"]):
        assert main(["--out", str(tmp_path), *wrong]) == 2
    assert "100 percent" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [3.0, 5.5, 8.0])
def test_greedy_stays_within_the_budget(limit):
    assert cost(np.array([greedy_row(cost, VALUES, limit)]))[0] <= limit
