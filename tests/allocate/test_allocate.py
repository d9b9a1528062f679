import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import chipfit as cf
from chipfit.allocate import milp
from chipfit.allocate.bound import linear_prices, price_bound
from chipfit.allocate.knapsack import read_knapsack
from chipfit.allocate.pareto import undominated
from chipfit.allocate.presolve import presolve
from chipfit.errors import BadInput, InfeasibleBudget, UnknownName

#: HiGHS alone, the beam alone, and both as they are used.
STEPS = {
    "highs": (milp.Search(None),),
    "beam": (milp.Beam(1_000_000),),
    "both": milp.STEPS,
}


def instance(seed):
    """Ragged groups, negative and forbidden values, 0 to 3 resources, 0 to 2 maxima."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 6, draw.integers(2, 6))
    whole = seed % 3 == 0  # whole numbers bring ties
    number = (
        (lambda low, high, n: draw.integers(low, high, n).astype(float)) if whole else draw.uniform
    )

    values = [number(-5, 6, size) for size in sizes]
    for group in values:
        if len(group) > 1 and draw.random() < 0.2:
            group[draw.integers(len(group))] = -np.inf
    costs = [[number(-1, 10, size) for size in sizes] for _ in range(draw.integers(0, 4))]
    budgets = [draw.uniform(0.1, 0.9) * 8 * len(sizes) for _ in costs]
    maxima = [[number(0, 10, size) for size in sizes] for _ in range(draw.integers(0, 3))]
    return (values, costs, budgets), {"maxima": maxima, "max_budgets": [draw.uniform(5, 11) for _ in maxima]}  # fmt: skip


def enumerated(values, costs, budgets, maxima=(), max_budgets=()):
    """The best value by plain Python, or None: independent of everything in the package."""
    best = None
    for choice in itertools.product(*[range(len(group)) for group in values]):

        def figures(table, choice=choice):
            return [table[group][option] for group, option in enumerate(choice)]

        fits = all(sum(figures(c)) <= b for c, b in zip(costs, budgets))
        fits = fits and all(max(figures(m)) <= b for m, b in zip(maxima, max_budgets))
        value = sum(figures(values))
        if fits and value > -np.inf and (best is None or value > best):
            best = value
    return best


@pytest.mark.parametrize("chunk", range(10))
def test_every_exact_solver_finds_what_enumeration_finds(chunk, monkeypatch):
    infeasible = 0
    for seed in range(20 * chunk, 20 * chunk + 20):
        given, bounds = instance(seed)
        best = enumerated(*given, **bounds)
        infeasible += best is None
        for backend, steps in [("brute-force", "both"), ("dynamic-programme", "both"), *(("milp", name) for name in STEPS)]:  # fmt: skip
            monkeypatch.setattr(milp, "STEPS", STEPS[steps])
            if best is None:
                with pytest.raises(InfeasibleBudget):
                    cf.allocate.solve(*given, **bounds, backend=backend)
                continue
            found = cf.allocate.solve(*given, **bounds, backend=backend, time_limit_s=60)
            assert found.value == pytest.approx(best, abs=1e-9), (seed, backend, steps)
            assert (found.gap, found.status) == (0.0, "optimal")
            check(found, *given, **bounds)
    assert 0 < infeasible < 20


def check(found, values, costs, budgets, maxima=(), max_budgets=()):
    def figures(table):
        return [table[group][option] for group, option in enumerate(found.choice)]

    assert found.value == pytest.approx(sum(figures(values)))
    assert found.cost == pytest.approx([sum(figures(c)) for c in costs])
    assert found.maximum == pytest.approx([max(figures(m)) for m in maxima])
    assert all(cost <= budget for cost, budget in zip(found.cost, budgets))
    assert all(figure <= bound for figure, bound in zip(found.maximum, max_budgets))


def correlated(groups, options, resources, seed, share=0.3):
    draw = np.random.default_rng(seed)
    cost = np.sort(draw.uniform(0, 1, (resources, groups, options)), axis=-1)
    value = np.sqrt(cost.mean(axis=0)) + draw.normal(size=(groups, options)) * 1e-3
    low, high = cost.min(-1).sum(-1), cost.max(-1).sum(-1)
    return value, cost, low + share * (high - low)


def test_fifty_layers_with_two_hundred_options_are_solved_to_proven_optimality():
    given = correlated(50, 200, 1, seed=1)
    solved = cf.allocate.solve(*given, time_limit_s=120)
    other = cf.allocate.solve(*given, backend="dynamic-programme", time_limit_s=120)
    assert solved.gap == other.gap == 0.0
    assert solved.choice == other.choice
    greedy = cf.allocate.solve(*given, backend="greedy")
    assert greedy.value < solved.value <= greedy.value / (1 - greedy.gap) + 1e-9
    assert solved == type(solved)(
        **{**vars(cf.allocate.solve(*given, time_limit_s=120)), "seconds": solved.seconds}
    )


def test_what_time_does_not_allow_is_within_the_budgets_and_bounded():
    given = correlated(30, 60, 3, seed=2)
    late = cf.allocate.solve(*given, time_limit_s=0.0)
    best = cf.allocate.solve(*given, time_limit_s=5.0)
    assert late.status == "feasible"
    assert late.gap > 0
    assert all(cost <= budget for cost, budget in zip(late.cost, given[2]))
    assert (
        late.value <= best.value <= late.value + late.gap * abs(late.value) / (1 - late.gap) + 1e-9
    )


def test_prices_bound_every_choice():
    for seed in range(30):
        given, bounds = instance(seed)
        best = enumerated(*given, **bounds)
        if best is None:
            continue
        problem = read_knapsack(*given, **bounds)
        for prices in (linear_prices(problem), np.ones(problem.cost.shape[1])):
            assert price_bound(problem, prices).value >= best - 1e-9
        left, bound, known = presolve(problem)
        assert known.value <= best + 1e-9
        assert bound.value >= best - 1e-9 or known.value == pytest.approx(best)


@pytest.mark.parametrize("resources", [0, 1, 2, 3])
def test_undominated_sums_hold_the_pareto_set(resources):
    draw = np.random.default_rng(resources)
    value, cost = (
        draw.integers(0, 6, 80).astype(float),
        draw.integers(0, 6, (80, resources)).astype(float),
    )
    kept = undominated(value, cost)
    for index in range(80):
        assert any(value[k] >= value[index] and (cost[k] <= cost[index]).all() for k in kept)
    for a, b in itertools.permutations(kept, 2):
        assert value[a] < value[b] or (cost[a] > cost[b]).any()


def test_a_budget_is_kept_without_tolerance():
    # 1e-7 above the budget is within HiGHS's feasibility tolerance.
    values, budget = [[0.0, 1.0], [0.0, 1.0]], 2.0
    for over in (1e-7, 1e-9, 1e-15):
        costs = [[[0.0, 1.0], [0.0, 1.0 + over]]]
        found = cf.allocate.solve(values, costs, [budget])
        assert found.value == 1.0
        assert found.cost[0] <= budget
    assert cf.allocate.solve(values, [[[0.0, 1.0], [0.0, 1.0]]], [budget]).value == 2.0


def test_highs_above_a_budget_is_cut_off(monkeypatch):
    monkeypatch.setattr(milp, "STEPS", (milp.Search(None),))
    draw = np.random.default_rng(0)
    for _ in range(5):
        value = draw.uniform(1, 2, (6, 4))
        cost = draw.uniform(1, 2, (6, 4))
        exact = cf.allocate.solve(value, [cost], [9.0], backend="brute-force")
        # The best choice misses the budget by a hair now.
        below = np.nextafter(exact.cost[0], 0)
        found = cf.allocate.solve(value, [cost], [below])
        assert (
            found.value
            == cf.allocate.solve(value, [cost], [below], backend="brute-force").value
            < exact.value
        )


def test_huge_negative_values_do_not_spoil_the_arithmetic():
    value, cost, budget = correlated(10, 8, 1, seed=3)
    forbidden = value.copy()
    forbidden[:, 3] = -np.inf
    penalised = np.where(np.isneginf(forbidden), -1e30, forbidden)
    exact = cf.allocate.solve(forbidden, cost, budget)
    assert cf.allocate.solve(penalised, cost, budget).choice == exact.choice


def test_arrays_do_as_well_as_lists():
    value, cost = np.array([[1.0, 3.0], [0.0, 2.0]]), np.array([[[1.0, 5.0], [1.0, 2.0]]])
    bounds = {"maxima": np.array([[[9.0, 1.0], [1.0, 1.0]]]), "max_budgets": np.array([8.0])}
    found = cf.allocate.solve(value, cost, np.array([7.0]), **bounds)
    assert (found.choice, found.value) == ((1, 1), 5.0)
    assert found.maximum == (1.0,)


def test_an_infeasible_budget_names_the_cheapest_reachable_cost():
    values, costs = [[1.0, 2.0], [0.0, 3.0]], [[[2.5, 4], [1, 2]], [[10, 1], [10, 1]]]
    with pytest.raises(InfeasibleBudget, match=r"latency_ms: budget 3, cheapest reachable 3.5"):
        cf.allocate.solve(values, costs, [3, 100], names=["latency_ms", "macs"])
    with pytest.raises(InfeasibleBudget, match="each is reachable alone"):
        cf.allocate.solve(values, costs, [3.6, 3])
    with pytest.raises(
        InfeasibleBudget, match=r"group 1 .*sram_bytes: bound 5, smallest reachable 7"
    ):
        cf.allocate.solve(
            values, [], [], maxima=[[[1, 2], [7, 8]]], max_budgets=[5], names=["sram_bytes"]
        )


@pytest.mark.parametrize("backend", ["milp", "dynamic-programme", "brute-force", "greedy"])
def test_without_a_budget_that_binds_the_best_of_every_group_is_chosen(backend):
    values = [[1.0, 2.0], [5.0, -1.0, 5.0]]
    assert cf.allocate.solve(values, [], [], backend=backend).choice == (1, 0)
    assert cf.allocate.solve(values, [[[1, 2], [3, 4, 1]]], [np.inf], backend=backend).value == 7.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": []}, "no groups"),
        ({"values": [[1.0], []]}, "group 1 has no options"),
        ({"values": [[-np.inf], [1.0, 2.0]]}, "group 0 is forbidden"),
        ({"values": [[np.nan], [1.0, 2.0]]}, "NaN"),
        ({"costs": [[[1.0], [1.0]]]}, "other groups or options"),
        ({"costs": [[[1.0], [np.nan, 1.0]]]}, "NaN"),
        ({"budgets": [1.0, 2.0]}, "2"),
        ({"names": ["a", "b"]}, "names"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(change, message):
    given = {
        "values": [[1.0], [1.0, 2.0]],
        "costs": [[[1.0], [1.0, 2.0]]],
        "budgets": [5.0],
        **change,
    }
    with pytest.raises(BadInput, match=message):
        cf.allocate.solve(**given)


def test_unknown_backends_and_too_many_choices_are_refused():
    with pytest.raises(UnknownName):
        cf.allocate.solve([[1.0]], [], [], backend="simplex")
    with pytest.raises(BadInput, match="brute force"):
        cf.allocate.brute_force(np.zeros((30, 4)), [], [])


def test_nothing_but_our_own_lines_reaches_standard_output(tmp_path):
    # This instance makes HiGHS print a line of its own.
    code = (
        "import numpy as np, chipfit as cf\n"
        "from chipfit.allocate import milp\n"
        "milp.STEPS = (milp.Search(None),)\n"
        "draw = np.random.default_rng(1)\n"
        "cost = np.sort(draw.uniform(0, 1, (1, 50, 200)), axis=-1)\n"
        "value = np.sqrt(cost.mean(axis=0)) + draw.normal(size=(50, 200)) * 1e-3\n"
        "print('before')\n"
        "cf.allocate.solve(value, cost, cost.max(-1).sum(-1) * 0.25, time_limit_s=20)\n"
        "print('after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=True,
    )
    assert done.stdout == "before\nafter\n"


def test_lines_of_others_pass_the_filter(capfd):
    from chipfit.allocate.quiet import without_stray_lines

    with without_stray_lines():
        os.write(1, b"kept\nHighsMipSolverData::transform\n")
        os.write(1, b"also kept")
    assert capfd.readouterr().out == "kept\nalso kept"
