import json

import numpy as np
import pytest

from benchmarks import soft_masks
from benchmarks.run import QUICK
from benchmarks.soft_masks import VARIANTS, greedy, main, rows_of
from chipfit.errors import InfeasibleBudget


def test_the_quick_benchmark_runs_and_continues(tmp_path, monkeypatch):
    few = {name: VARIANTS[name] for name in ("soft", "permanent", "soft, greedy")}
    monkeypatch.setattr(soft_masks, "VARIANTS", few)
    arguments = [*QUICK["soft_masks"][:-2], "--store", str(tmp_path / "store")]
    for _ in range(2):
        assert main([*arguments, "--out", str(tmp_path)]) == 0
        (table,) = json.loads((tmp_path / "soft_masks.json").read_text())["tables"]
        rows = {row["variant"]: row for row in table["rows"]}
        assert list(rows) == list(few)
        assert all(row["cost"] <= 0.5 and row["test %"]["median"] > 0 for row in rows.values())
        assert rows["permanent"]["revived"]["max"] == 0


def test_greedy_narrows_where_least_value_is_lost_per_cost():
    values = [np.array([0.0, 5.0, 6.0]), np.array([0.0, 1.0, 4.0])]

    def cost_of(codes):
        return (1.0 + codes.sum(1, keepdims=True)).astype(float)

    # From 5: the first group loses 1 at once, then the second 3, then 1.
    assert [greedy(values, cost_of, [limit], ()).choice for limit in (5.0, 4.0, 3.0, 2.0)] == [
        (2, 2), (1, 2), (1, 1), (1, 0),
    ]  # fmt: skip
    with pytest.raises(InfeasibleBudget):
        greedy(values, cost_of, [0.5], ())


def test_variants_are_compared_seed_by_seed():
    class Given:
        shares, seeds = (0.5, 0.3), 2

    def one(test):
        return {"test": test, "cost": 0.5, "revived": 3, "cpu_s": 1.0}

    found = {(v, share, seed): one(80.0 + seed) for v in VARIANTS for share in (0.5, 0.3)
             for seed in range(2)}  # fmt: skip
    found["hard", 0.5, 0], found["hard", 0.3, 1] = one(79.0), None
    rows = {(row["share"], row["variant"]): row for row in rows_of(found, Given)}
    assert rows[0.5, "hard"]["to soft"] == pytest.approx(-0.5)
    assert rows[0.5, "hard"]["seeds below"] == 1
    assert rows[0.3, "hard"]["test %"] is None and rows[0.3, "soft"]["test %"]["min"] == 80.0
