import itertools

import numpy as np
import pytest

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.methods.ran_e_chain import ChainTable

SIZES = (3, 2, 4, 3)


def chain(seed=0):
    """Return charges by place and pair, and a table that has seen every chain."""
    draw = np.random.default_rng(seed)
    own = [draw.uniform(10, 20, size) for size in SIZES]
    pair = [draw.uniform(0, 5, sizes) for sizes in itertools.pairwise(SIZES)]

    def charges(row):
        return [own[i][o] + (pair[i - 1][row[i - 1], o] if i else 0.0) for i, o in enumerate(row)]

    table = ChainTable(SIZES)
    for row in every():
        table.learn(row, charges(row), 7.0)
    table.fit()
    return table, lambda row: sum(charges(row)) + 7.0


def every():
    return list(itertools.product(*map(range, SIZES)))


def test_a_table_that_saw_everything_predicts_it():
    table, cost = chain()
    errors = [table.predict(row) / cost(row) - 1 for row in every()]
    assert max(map(abs, errors)) < 0.01


def test_the_cheapest_chain_is_that_of_enumeration():
    for seed in range(5):
        table, _ = chain(seed)
        draw = np.random.default_rng(100 + seed)
        amounts = {k: [list(draw.uniform(0, 10, s)) for s in SIZES] for k in ("units", "macs")}
        floors = {"units": 18.0, "macs": 14.0}

        def enough(row, amounts=amounts, floors=floors):
            return all(
                sum(a[o] for a, o in zip(amounts[k], row, strict=True)) >= floors[k] for k in floors
            )

        feasible = sorted(filter(enough, every()), key=table.predict)
        assert 3 <= len(feasible) < len(every())
        for excluded in range(3):
            row, cost, bound = table.cheapest(amounts, floors, feasible[:excluded])
            assert row == feasible[excluded]
            assert cost == pytest.approx(bound, rel=1e-6)


def test_floors_that_no_chain_meets_are_refused():
    table, _ = chain()
    with pytest.raises(InfeasibleBudget, match="no pattern meets"):
        table.cheapest({"units": [[1.0] * size for size in SIZES]}, {"units": 5.0})


def test_a_network_of_another_length_is_refused():
    table = ChainTable(SIZES)
    with pytest.raises(BadInput, match="due"):
        table.learn((0, 0), (1.0, 1.0), 0.0)
    with pytest.raises(BadInput, match="no network"):
        table.fit()
