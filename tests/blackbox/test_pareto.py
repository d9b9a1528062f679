import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipfit.blackbox import as_costs, crowding_distance, hypervolume, non_dominated, ranks
from chipfit.errors import BadInput

POINTS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=25)


def _dominates(a, b):
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@settings(max_examples=60, deadline=None)
@given(POINTS)
def test_front_and_ranks_are_those_of_the_definition(points):
    front = [i for i, p in enumerate(points) if not any(_dominates(q, p) for q in points)]
    assert non_dominated(points).tolist() == front
    left, rank, expected = set(range(len(points))), 0, {}
    while left:
        best = {i for i in left if not any(_dominates(points[j], points[i]) for j in left)}
        expected |= dict.fromkeys(best, rank)
        left, rank = left - best, rank + 1
    assert ranks(points).tolist() == [expected[i] for i in range(len(points))]


@settings(max_examples=60, deadline=None)
@given(POINTS, st.integers(2, 3))
def test_hypervolume_counts_unit_cells(points, dimensions):
    points = [point[:dimensions] for point in points]
    reference = (5,) * dimensions
    cells = sum(
        any(all(x <= c for x, c in zip(point, cell, strict=True)) for point in points)
        for cell in itertools.product(range(5), repeat=dimensions)
    )
    assert hypervolume(points, reference) == cells


def test_hypervolume_of_nothing_and_of_four_objectives():
    assert hypervolume([], (1.0, 1.0)) == 0.0
    assert hypervolume([[2.0, 0.0]], (1.0, 1.0)) == 0.0
    with pytest.raises(BadInput, match="two or three"):
        hypervolume([[0.0] * 4], (1.0,) * 4)


def test_constrained_domination_puts_feasible_points_first():
    # A feasible point that is worse everywhere, two infeasible ones that differ in violation only.
    costs = [[9.0, 9.0], [1.0, 1.0], [1.0, 1.0], [8.0, 9.0]]
    assert ranks(costs, [0.0, 0.5, 0.25, 0.0]).tolist() == [1, 3, 2, 0]
    # Infeasible ones of equal violation do not dominate each other, whatever their objectives.
    assert ranks([[0.0, 0.0], [5.0, 5.0]], [1.0, 1.0]).tolist() == [0, 0]
    with pytest.raises(BadInput):
        ranks(costs, [0.0, -1.0, 0.0, 0.0])


def test_crowding_distance_by_hand():
    costs = [[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]]
    found = crowding_distance(costs)
    assert found[[0, 3]].tolist() == [np.inf, np.inf]
    np.testing.assert_allclose(found[1:3], [4 / 10 + 5 / 10, 9 / 10 + 6 / 10], rtol=1e-15)
    assert crowding_distance([[1.0, 2.0]] * 3).tolist() == [0.0, 0.0, 0.0]
    assert crowding_distance([[1.0, 2.0]]).tolist() == [np.inf]


def test_directions():
    assert as_costs([[1.0, 2.0]], ("min", "max")).tolist() == [[1.0, -2.0]]
    with pytest.raises(BadInput, match="'min' or 'max'"):
        as_costs([[1.0]], ("up",))
    with pytest.raises(BadInput, match="finite"):
        as_costs([[float("nan")]], ("min",))
    with pytest.raises(BadInput):
        non_dominated([1.0, 2.0])
