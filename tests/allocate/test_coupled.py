import itertools

import numpy as np
import pytest

import chipfit as cf
from chipfit.errors import BadInput, InfeasibleBudget


def chain(seed):
    """A chain of layers: each costs width in times width out; peak memory is the largest pair."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(2, 6, int(draw.integers(3, 6)))
    widths = [np.sort(draw.choice(np.arange(1, 17), size, replace=False)) for size in sizes]
    values = [np.log(w) * draw.uniform(0.5, 2) + draw.normal(size=len(w)) * 0.1 for w in widths]
    places = draw.integers(1, 20, len(sizes) + 1)

    def cost_of(codes):
        inside = np.stack([widths[g][codes[:, g]] for g in range(len(sizes))], axis=1)
        ends = [np.full((len(codes), 1), width) for width in (3, 10)]
        all_widths = np.concatenate([ends[0], inside, ends[1]], axis=1)
        before, after = all_widths[:, :-1], all_widths[:, 1:]
        macs = (before * after * places).sum(axis=1)
        return np.stack([macs, (before + after).max(axis=1), (before * after).sum(axis=1)], axis=1)

    return values, cost_of, draw.uniform(0.2, 0.8)


@pytest.mark.parametrize("resources", [[0], [0, 1], [0, 1, 2]])
def test_coupled_costs_are_within_budget_and_near_the_best(resources):
    reached = []
    for seed in range(8):
        values, whole_cost, share = chain(seed)

        def cost_of(codes, whole_cost=whole_cost):
            return whole_cost(codes)[:, resources]

        every = np.array(list(itertools.product(*[range(len(v)) for v in values])))
        costs = cost_of(every)
        totals = sum(v[every[:, g]] for g, v in enumerate(values))
        budgets = costs.min(0) + share * (costs.max(0) - costs.min(0))
        best = totals[(costs <= budgets).all(axis=1)].max(initial=-np.inf)
        if np.isneginf(best):
            continue
        maximum = [resources.index(1)] if 1 in resources else []
        found = cf.allocate.solve_coupled(values, cost_of, budgets, maximum=maximum)
        assert (np.array(found.cost) <= budgets).all()
        assert found.cost == tuple(cost_of(np.array([found.choice]))[0])
        assert found.value <= best + 1e-9
        assert found.value + found.gap * max(abs(found.value), 1) >= best - 1e-9 or found.gap > 0
        reached.append((found.value - totals.min()) / (best - totals.min()))
    assert len(reached) >= 4
    assert min(reached) > 0.97
    assert np.mean(reached) > 0.995


def test_equal_arguments_give_equal_answers_and_a_start_is_taken():
    values, cost_of, _ = chain(3)
    budgets = cost_of(np.zeros((1, len(values)), dtype=int))[0] * 3
    first = cf.allocate.solve_coupled(values, cost_of, budgets, maximum=[1])
    again = cf.allocate.solve_coupled(values, cost_of, budgets, maximum=[1])
    assert first.choice == again.choice
    started = cf.allocate.solve_coupled(
        values, cost_of, budgets, start=first.choice, rounds=1, maximum=[1]
    )
    assert started.value >= first.value


def test_budgets_that_nothing_exceeds_give_the_best_values_proven():
    values, cost_of, _ = chain(1)
    found = cf.allocate.solve_coupled(values, cost_of, [1e9, 1e9, np.inf])
    assert found.choice == tuple(int(np.argmax(group)) for group in values)
    assert (found.gap, found.status) == (0.0, "optimal")


def test_a_budget_out_of_reach_names_the_cheapest_found():
    values, cost_of, _ = chain(2)
    least = cost_of(np.zeros((1, len(values)), dtype=int))[0]
    with pytest.raises(InfeasibleBudget, match=f"macs: budget .*, cheapest found {least[0]:.10g}"):
        cf.allocate.solve_coupled(
            values, cost_of, [least[0] - 1, 1e9, 1e9], names=["macs", "sram_bytes", "params"]
        )


def test_what_cannot_be_built_is_avoided():
    values = [[0.0, 1.0], [0.0, 1.0]]

    def cost_of(codes):
        return np.where((codes == 1).all(axis=1), np.inf, codes.sum(axis=1))[:, None]

    found = cf.allocate.solve_coupled(values, cost_of, [5.0])
    assert found.value == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cost_of": lambda codes: codes}, "cost_of returned"),
        ({"cost_of": lambda codes: np.full((len(codes), 1), np.nan)}, "NaN"),
        ({"start": [0]}, "start"),
        ({"start": [0, 7]}, "start"),
        ({"maximum": [3]}, "maximum"),
        ({"values": [[-np.inf], [1.0, 2.0]]}, "group 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(settings, message):
    given = {
        "values": [[1.0, 2.0], [1.0, 2.0]], "cost_of": lambda codes: codes.sum(axis=1)[:, None],
        "budgets": [1.0], **settings,
    }  # fmt: skip
    with pytest.raises(BadInput, match=message):
        cf.allocate.solve_coupled(**given)


def test_from_a_given_start_alone_it_climbs_there():
    """With an additive cost there is one best choice; from a start within the budget it is met."""
    values = [[0.0, 1.0, 3.0], [0.0, 2.0, 3.0], [0.0, 1.0, 1.5]]

    def cost_of(codes):
        return codes.sum(axis=1, keepdims=True)

    asked = []

    def counted(codes):
        asked.append(len(codes))
        return cost_of(codes)

    wide = cf.allocate.solve_coupled(values, counted, [4], start=(1, 1, 1))
    everywhere = sum(asked)
    asked.clear()
    near = cf.allocate.solve_coupled(values, counted, [4], start=(1, 1, 1), everywhere=False)
    assert near.value == wide.value == 6.0
    assert sum(asked) < everywhere
