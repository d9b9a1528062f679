import itertools

import numpy as np
import pytest

import chipfit as cf
from chipfit.errors import BadInput, InfeasibleBudget


def problem(seed, groups=5, options=4):
    draw = np.random.default_rng(seed)
    value, cost = draw.normal(size=(groups, options)), draw.uniform(0, 1, (groups, options))
    return value, cost, 0.5 * groups


def best_apart(value, cost, budget, earlier, alike):
    best = None
    for choice in itertools.product(range(value.shape[1]), repeat=len(value)):
        if sum(cost[g][o] for g, o in enumerate(choice)) > budget:
            continue
        if any(sum(a == b for a, b in zip(choice, other)) > alike for other in earlier):
            continue
        total = sum(value[g][o] for g, o in enumerate(choice))
        if best is None or total > best:
            best = total
    return best


@pytest.mark.parametrize("backend", ["milp", "dynamic-programme"])
@pytest.mark.parametrize("seed", range(6))
def test_each_is_the_best_that_differs_enough_from_all_before(seed, backend):
    value, cost, budget = problem(seed)
    overlap = (0.4, 0.6, 0.8)[seed % 3]
    found = cf.allocate.solve_diverse(value, [cost], [budget], 4, overlap, backend=backend)
    alike = round(overlap * len(value))
    for index, each in enumerate(found):
        earlier = [other.choice for other in found[:index]]
        assert each.value == pytest.approx(best_apart(value, cost, budget, earlier, alike))
        assert each.gap == 0.0
        assert each.cost[0] <= budget
        assert all(each.overlap(other) <= alike for other in found[:index])
    if len(found) < 4:
        assert best_apart(value, cost, budget, [each.choice for each in found], alike) is None


def test_costs_are_those_of_the_caller_alone():
    value, cost, budget = problem(0)
    for each in cf.allocate.solve_diverse(value, [cost], [budget], 3, 0.6):
        assert each.cost == pytest.approx([cost[np.arange(5), each.choice].sum()])


def test_fewer_are_returned_where_no_more_exist():
    value = [[1.0, 0.0], [1.0, 0.0]]
    found = cf.allocate.solve_diverse(value, [], [], 10, 0.0)
    assert [each.choice for each in found] == [(1, 1), (0, 0)][::-1]
    every = cf.allocate.solve_diverse(value, [], [], 10, 1.0)
    assert len({each.choice for each in every}) == len(every) == 4
    assert [each.value for each in every] == [2.0, 1.0, 1.0, 0.0]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(BadInput):
        cf.allocate.solve_diverse([[1.0]], [], [], 0, 0.5)
    with pytest.raises(BadInput):
        cf.allocate.solve_diverse([[1.0]], [], [], 1, 1.5)
    with pytest.raises(InfeasibleBudget):
        cf.allocate.solve_diverse([[1.0]], [[[2.0]]], [1.0], 3, 0.5)
