import json

import pytest
import torch

from benchmarks.repnas_alike import (
    ALL,
    ANEW,
    PLAIN,
    RANDOM,
    SEARCHED,
    Job,
    against,
    branches_of,
    kind_rows,
    with_only,
)
from chipfit.nets import create

SHAPE = (1, 1, 8, 8)
FOUND = {"stage0": ["3x3"], "stage1.0": ["3x3", "1x3"], "stage1.1": ["1x1"], "stage1.2": ["3x3"],
         "stage2.0": ["3x3"], "stage2.1": ["1x1-avg", "3x1"], "stage2.2": ["3x3"]}  # fmt: skip


@pytest.fixture
def job(tmp_path):
    def make(kind, draw=0, seed=0):
        return Job(kind, seed, draw, 4, 0.34, 0.01, tmp_path)

    make(SEARCHED).file.write_text(json.dumps({"chosen": FOUND}))
    return make


def test_random_branches_are_as_many_as_were_searched_and_differ_by_draw(job):
    net = create("tiny_rep_branches", input_shape=SHAPE)
    assert branches_of(job(SEARCHED), net) is None
    assert branches_of(job(ANEW), net) == FOUND
    drawn = [branches_of(job(RANDOM, draw), net) for draw in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    for own in drawn:
        assert sum(map(len, own.values())) == 9
        assert all(own.values())
    assert {len(own) for own in branches_of(job(ALL), net).values()} == {6}
    assert set(branches_of(job(PLAIN), net).values()) == {("3x3",)}


def test_branches_that_stay_keep_their_weights():
    net = create("tiny_rep_branches", input_shape=SHAPE)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    after = with_only(net, FOUND).state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())
    kept = {key.split(".branches.")[1].split(".")[0] for key in after if "stage2.1.branches" in key}
    assert kept == {"1x1-avg", "3x1"}


def test_kinds_are_compared_seed_by_seed():
    results = [
        {"kind": kind, "seed": seed, "draw": draw, "test": test, "val": test, "branches": 9,
         "train_macs": 5, "cpu_s_per_step": 0.5}
        for kind, seed, draw, test in (
            (SEARCHED, 0, 0, 0.92), (SEARCHED, 1, 0, 0.90), (RANDOM, 0, 0, 0.90),
            (RANDOM, 0, 1, 0.92), (RANDOM, 1, 0, 0.91), (ANEW, 0, 0, 0.9), (ANEW, 1, 0, 0.9),
            (ALL, 0, 0, 0.9), (ALL, 1, 0, 0.9), (PLAIN, 0, 0, 0.9), (PLAIN, 1, 0, 0.9),
        )
    ]  # fmt: skip
    rows = {row["branches"]: row for row in against(results, RANDOM)}
    gap = rows[SEARCHED]["points above random K"]
    assert (gap["min"], gap["median"], gap["max"]) == pytest.approx((-1.0, 0.0, 1.0))
    assert rows[SEARCHED]["seeds above"] == "1 of 2"
    assert RANDOM not in rows
    assert [row["trainings"] for row in kind_rows(results)] == [2, 2, 3, 2, 2]
