import itertools

import numpy as np
import pytest

from chipfit.methods import derive
from chipfit.methods.derive import best_within, cheapest_within_reach

SIZES = (2, 3, 4, 2, 3)


def _problem(seed):
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=s) for s in SIZES]
    own = [rng.uniform(0.5, 2.0, s) for s in SIZES]
    pairs = [rng.uniform(0, 0.3, (a, b)) for a, b in itertools.pairwise(SIZES)]

    def cost(codes):  # neighbours change each other's price
        total = sum(o[codes[:, b]] for b, o in enumerate(own))
        return total + sum(p[codes[:, b], codes[:, b + 1]] for b, p in enumerate(pairs))

    def other(codes):
        return codes.sum(1).astype(float)

    every = np.array(list(itertools.product(*(range(s) for s in SIZES))))
    value = sum(s[every[:, b]] for b, s in enumerate(scores))
    return scores, {"a": cost, "b": other}, every, value


@pytest.mark.parametrize("seed", range(20))
def test_the_best_patterns_are_those_of_all(seed):
    scores, costs, every, value = _problem(seed)
    limits = {"a": float(np.quantile(costs["a"](every), 0.3)), "b": 5.0}
    inside = (costs["a"](every) <= limits["a"]) & (costs["b"](every) <= limits["b"])
    order = np.argsort(-value[inside])[:3]
    assert best_within(scores, costs, limits, 3).tolist() == every[inside][order].tolist()


@pytest.mark.parametrize("seed", range(20))
def test_too_many_to_enumerate_are_searched_and_stay_within(seed, monkeypatch):
    scores, costs, every, value = _problem(seed)
    limits = {"a": float(np.quantile(costs["a"](every), 0.3)), "b": 5.0}
    inside = (costs["a"](every) <= limits["a"]) & (costs["b"](every) <= limits["b"])
    monkeypatch.setattr(derive, "ENUMERATED", 10)
    found = best_within(scores, costs, limits)
    assert len(found) == 1
    assert costs["a"](found)[0] <= limits["a"]
    assert costs["b"](found)[0] <= limits["b"]
    reached = sum(s[found[0, b]] for b, s in enumerate(scores))
    spread = value[inside].max() - np.median(value[inside])
    assert reached >= value[inside].max() - 0.25 * spread


def test_forbidden_options_are_never_taken_and_nothing_is_found_where_nothing_fits():
    scores, costs, _, _ = _problem(0)
    scores[1][:2] = -np.inf
    assert (best_within(scores, costs, {"a": 100.0}, 50)[:, 1] == 2).all()
    assert len(best_within(scores, costs, {"a": 0.0})) == 0


def test_equal_scores_go_to_the_cheaper():
    scores = [np.zeros(2), np.zeros(2)]
    costs = {"a": lambda codes: 3.0 - codes @ np.array([1.0, 0.5])}
    assert best_within(scores, costs, {"a": 9.0}, 2).tolist() == [[1, 1], [1, 0]]


def test_the_cheapest_pattern_is_found(monkeypatch):
    for seed in range(5):
        _, costs, every, _ = _problem(seed)
        lowest = costs["a"](every).min()
        assert costs["a"](cheapest_within_reach(SIZES, costs["a"])[None])[0] == lowest
    monkeypatch.setattr(derive, "ENUMERATED", 10)
    found = costs["a"](cheapest_within_reach(SIZES, costs["a"])[None])[0]
    assert found <= np.quantile(costs["a"](every), 0.02)
