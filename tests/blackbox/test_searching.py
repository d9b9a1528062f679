import itertools
import math
import random

import numpy as np
import pytest

from chipfit.blackbox import (
    NSGA2,
    Evaluation,
    RandomSearch,
    RegularisedEvolution,
    Reinforce,
    mnasnet_reward,
    non_dominated,
    search,
    window_violation,
)
from chipfit.blackbox.variation import (
    mutate_each,
    mutate_one,
    two_point_crossover,
    uniform_crossover,
)
from chipfit.errors import BadInput

BITS = 10
EVERY = list(itertools.product((0, 1), repeat=BITS))
_DRAW = random.Random(7)
VALUES = [_DRAW.randint(1, 40) for _ in range(BITS)]
WEIGHTS = [_DRAW.randint(1, 40) for _ in range(BITS)]


def leading_ones_trailing_zeros(row):
    ones = next((i for i, bit in enumerate(row) if not bit), BITS)
    zeros = next((i for i, bit in enumerate(reversed(row)) if bit), BITS)
    return float(ones), float(-zeros)


def knapsack(row):
    """A value with interactions, to be maximised, and a weight."""
    value = sum(v for v, bit in zip(VALUES, row, strict=True) if bit)
    value += 15 * (row[0] & row[7]) - 20 * (row[2] & row[5])
    return float(value), float(sum(w for w, bit in zip(WEIGHTS, row, strict=True) if bit))


def true_front(figures, rows=EVERY):
    points = [figures(row) for row in rows]
    costs = [(-value, cost) for value, cost in points]
    return {points[i] for i in non_dominated(costs)}


@pytest.mark.parametrize("figures", [leading_ones_trailing_zeros, knapsack])
@pytest.mark.parametrize("crossover", ["uniform", "two-point"])
def test_nsga2_finds_the_exact_front_of_a_brute_forced_space(figures, crossover):
    expected = true_front(figures)
    strategy = NSGA2((2,) * BITS, ("max", "min"), 1, 60, crossover)
    search(strategy, lambda rows: [Evaluation(r, figures(r)) for r in rows], 660)
    assert {e.values for e in strategy.front()} == expected
    assert expected <= {e.values for e in strategy.population}
    assert strategy.generation == 11
    # Random search does not, with as many evaluations.
    baseline = RandomSearch((2,) * BITS, ("max", "min"), 1)
    search(baseline, lambda rows: [Evaluation(r, figures(r)) for r in rows], 660)
    assert {e.values for e in baseline.front()} != expected


def test_nsga2_finds_the_front_inside_a_window_without_values_of_what_is_outside():
    low, high = 60.0, 110.0
    inside = [row for row in EVERY if low <= knapsack(row)[1] <= high]

    def evaluate(rows):
        found = []
        for row in rows:
            violation = window_violation(knapsack(row)[1], low, high)
            found.append(Evaluation(row, () if violation else knapsack(row), violation))
        return found

    strategy = NSGA2((2,) * BITS, ("max", "min"), 0, 40)
    search(strategy, evaluate, 600)
    assert {e.values for e in strategy.front()} == true_front(knapsack, inside)
    assert all(e.feasible for e in strategy.population)


def test_nsga2_ends_where_nothing_is_feasible():
    strategy = NSGA2((2,) * 6, ("max", "min"), 0, 16)
    search(strategy, lambda rows: [Evaluation(r, (), 1.0 + sum(r)) for r in rows], 10_000)
    assert len(strategy.evaluations) == 64 and strategy.front() == []
    # The least infeasible survive.
    assert min(sum(e.row) for e in strategy.population) == 0
    assert max(sum(e.row) for e in strategy.population) <= 2


def test_nsga2_waits_for_its_generation():
    strategy = NSGA2((4,) * 5, ("max",), 0, 6)
    rows = strategy.ask(10)
    assert len(rows) == 6 and strategy.ask(1) == [] and not strategy.exhausted
    for row in rows[::-1]:
        strategy.tell(row, (float(sum(row)),))
    assert strategy.generation == 1 and len(strategy.ask(10)) == 6


def test_nsga2_keeps_its_best():
    strategy, best = NSGA2((5,) * 6, ("max",), 0, 10), -math.inf
    for _ in range(12):
        for row in strategy.ask(10):
            strategy.tell(row, (float(np.prod([o + 1 for o in row])),))
        now = max(e.values[0] for e in strategy.population)
        assert now >= best
        assert now == max(e.values[0] for e in strategy.evaluations)
        best = now


def test_regularised_evolution_lets_the_oldest_die_even_if_it_is_the_best():
    strategy = RegularisedEvolution((6,) * 6, ("max",), 0, population=5, sample=2)
    told = []
    for i in range(12):
        (row,) = strategy.ask()
        strategy.tell(row, (100.0 if i == 0 else float(i),))
        told.append(row)
    assert [e.row for e in strategy.population] == told[-5:]


def test_regularised_evolution_mutates_the_best_of_a_full_sample():
    # A sample of 200 of 4 holds the best but with a chance of 1e-25.
    strategy = RegularisedEvolution((9,) * 4, ("min",), 0, population=4, sample=200)
    for value, row in enumerate(strategy.ask(4)):
        strategy.tell(row, (float(value),))
    best = strategy.population[0].row
    for child in strategy.ask(8):
        assert sum(a != b for a, b in zip(child, best, strict=True)) == 1


def test_regularised_evolution_prefers_what_is_feasible():
    strategy = RegularisedEvolution((9,) * 4, ("max",), 0, population=3, sample=200)
    first, second, third = strategy.ask(3)
    strategy.tell(first, (9.0,), 0.5)
    strategy.tell(second, (), 0.1)
    strategy.tell(third, (1.0,))
    assert all(sum(a != b for a, b in zip(r, third, strict=True)) == 1 for r in strategy.ask(4))


def test_reinforce_score_is_the_gradient_of_the_log_probability():
    strategy = Reinforce((3, 2, 4))
    strategy._logits[:] = np.where(
        np.isfinite(strategy._logits), np.linspace(-1, 1, 12).reshape(3, 4), -np.inf
    )
    row = (2, 0, 1)

    def log_probability():
        return sum(math.log(p[o]) for p, o in zip(strategy.probabilities, row, strict=True))

    found = strategy.score(row)
    for i, size in enumerate(strategy.sizes):
        for option in range(4):
            if option >= size:
                assert found[i, option] == 0.0
                continue
            step, at = 1e-6, strategy._logits[i, option]
            strategy._logits[i, option] = at + step
            above = log_probability()
            strategy._logits[i, option] = at - step
            below = log_probability()
            strategy._logits[i, option] = at
            assert found[i, option] == pytest.approx((above - below) / (2 * step), abs=1e-8)


def test_reinforce_learns_the_better_options():
    strategy = Reinforce((3, 2, 4), seed=0, learning_rate=0.2)
    search(strategy, lambda rows: [Evaluation(r, (float(sum(r)),)) for r in rows], 24)
    assert strategy.most_probable() == (2, 1, 3)
    for probabilities in strategy.probabilities:
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
        assert probabilities[-1] > 0.5


def test_reinforce_has_no_constraints():
    strategy = Reinforce((3, 2))
    (row,) = strategy.ask()
    with pytest.raises(BadInput, match="reward"):
        strategy.tell(row, (1.0,), 0.1)


def test_mnasnet_reward():
    assert mnasnet_reward(0.75, 80.0, 80.0) == 0.75
    # MnasNet: twice the latency is worth about 5 % of relative accuracy.
    assert mnasnet_reward(1.0, 2.0, 1.0) == pytest.approx(0.9526, abs=1e-4)
    assert mnasnet_reward(0.7, 40.0, 80.0, within=0.0, beyond=-1.0) == 0.7
    assert mnasnet_reward(0.7, 160.0, 80.0, within=0.0, beyond=-1.0) == 0.35
    with pytest.raises(BadInput):
        mnasnet_reward(0.7, 0.0, 80.0)


def test_variation():
    rng, sizes = random.Random(0), (3, 1, 2, 5)
    row = (2, 0, 1, 4)
    children = {mutate_one(row, sizes, rng) for _ in range(300)}
    assert len(children) == 2 + 0 + 1 + 4
    assert all(sum(a != b for a, b in zip(c, row, strict=True)) == 1 for c in children)
    assert mutate_one((0, 0), (1, 1), rng) == (0, 0)
    assert mutate_each(row, sizes, 0.0, rng) == row
    changed = mutate_each(row, sizes, 1.0, rng)
    assert [a != b for a, b in zip(changed, row, strict=True)] == [True, False, True, True]
    for cross in (uniform_crossover, two_point_crossover):
        pairs = [cross((0,) * 6, (1,) * 6, rng) for _ in range(200)]
        assert all(tuple(a + b for a, b in zip(*pair, strict=True)) == (1,) * 6 for pair in pairs)
        assert len({pair[0] for pair in pairs}) > 10
    cuts = [two_point_crossover((0,) * 6, (1,) * 6, rng)[0] for _ in range(100)]
    assert all(sum(a != b for a, b in itertools.pairwise(cut)) <= 2 for cut in cuts)
