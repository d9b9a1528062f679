import itertools

import numpy as np
import pytest

from chipfit.methods.scaling_search import Question, solve
from chipfit.space.chain import fit_chain

GRIDS = ((8, 16, 24), (16, 24, 32), (24, 40))
DEPTHS = ((1, 4), (2, 3), (1, 5))


def figures_of(seed):
    """Return random figures of the form that a chain has."""
    rng = np.random.default_rng(seed)
    pair = rng.uniform(0, 0.02, 2)
    block, own = rng.uniform(0.1, 2, 3), rng.uniform(0, 5, 3)

    def evaluate(shapes):
        found = []
        for widths, depths in shapes:
            stages = range(3)
            cost = sum(depths[s] * block[s] * widths[s] ** 1.7 + own[s] * widths[s] for s in stages)
            cost += sum(pair[s] * widths[s] * widths[s + 1] ** 1.5 for s in range(2))
            mass = sum(2 * w * d for w, d in zip(widths, depths, strict=True))
            units = sum(
                w * d * 4 ** (3 - s) for s, (w, d) in enumerate(zip(widths, depths, strict=True))
            )
            found.append({"cost": cost, "mass": mass, "units": units})
        return found

    return evaluate


def everything():
    ranges = [range(low, high + 1) for low, high in DEPTHS]
    return list(itertools.product(itertools.product(*GRIDS), itertools.product(*ranges)))


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_equals_every_network_of_its_grid(seed):
    evaluate = figures_of(seed)
    chain = fit_chain(evaluate, GRIDS, (2, 2, 2))
    for (widths, depths), figures in zip(everything(), evaluate(everything()), strict=True):
        assert chain.values(widths, depths) == pytest.approx(figures)


def test_products_of_widths_need_two_points_a_stage():
    def evaluate(shapes):
        return [{"macs": 3 * a * b + a * a * d + b * e} for (a, b), (d, e) in shapes]

    chain = fit_chain(evaluate, (range(8, 80, 8), range(16, 90, 8)), (2, 2), pair_points=2)
    for shape in [((16, 40), (3, 5)), ((56, 32), (1, 2)), ((72, 88), (7, 9))]:
        assert chain.values(*shape) == pytest.approx(evaluate([shape])[0])


@pytest.mark.parametrize("seed", range(4))
def test_the_search_equals_trying_everything(seed):
    evaluate = figures_of(seed)
    chain = fit_chain(evaluate, GRIDS, (2, 2, 2))
    every = evaluate(everything())
    rng = np.random.default_rng(seed)
    for _ in range(3):
        some = every[rng.integers(len(every))]
        low = {"mass": some["mass"], "units": 0.9 * some["units"]}
        fits = [f["cost"] for f in every if f["mass"] >= low["mass"] and f["units"] >= low["units"]]
        answer = solve(chain, Question("cost", DEPTHS, low))[0]
        assert answer.figures["cost"] == pytest.approx(min(fits))
        assert all(answer.figures[name] >= bound for name, bound in low.items())
        heavy = [f["mass"] for f in every if f["cost"] <= some["cost"]]
        answer = solve(chain, Question("mass", DEPTHS, {}, {"cost": some["cost"]}, -1))[0]
        assert answer.figures["mass"] == pytest.approx(max(heavy))
        assert answer.figures["cost"] <= some["cost"] * (1 + 1e-12)


def test_the_next_best_have_other_widths_in_order_of_cost():
    evaluate = figures_of(7)
    chain = fit_chain(evaluate, GRIDS, (2, 2, 2))
    answers = solve(chain, Question("cost", DEPTHS, {"mass": 400}), 5)
    best = {}
    for (widths, _), figures in zip(everything(), evaluate(everything()), strict=True):
        if figures["mass"] >= 400:
            best[widths] = min(best.get(widths, np.inf), figures["cost"])
    assert [a.figures["cost"] for a in answers] == pytest.approx(sorted(best.values())[:5])
    assert len({a.widths for a in answers}) == 5


def test_what_nothing_meets_has_no_answer():
    chain = fit_chain(figures_of(0), GRIDS, (2, 2, 2))
    assert solve(chain, Question("cost", DEPTHS, {"mass": 1e6})) == []


def test_a_single_stage_has_no_pairs():
    def evaluate(shapes):
        return [{"cost": w * w * d, "mass": w * d} for (w,), (d,) in shapes]

    chain = fit_chain(evaluate, [(4, 8, 16)], [2])
    answer = solve(chain, Question("cost", ((1, 9),), {"mass": 33}))[0]
    assert (answer.widths, answer.depths) == ((4,), (9,))
