import itertools
from dataclasses import replace

import numpy as np
import pytest

from chipfit.cost.budget import Budget
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph.channels import channel_groups
from chipfit.methods.width_table import WidthTable, thinned_widths, width_table
from chipfit.space.widths import width_space


@pytest.fixture
def opened(problem):
    def build(target, key, most=3):
        found, _ = problem(target, {key: 0.9})
        groups = channel_groups(found.net, found.example)
        return found, groups, thinned_widths(groups, found.target.alignment, most)

    return build


@pytest.mark.parametrize(
    ("target", "key"),
    [("analytic", "weight_bytes"), ("analytic", "peak_sram_bytes"), ("ethos-u55-128", "cycles")],
)
def test_costs_equal_those_of_networks_predicted_one_by_one(opened, target, key):
    problem, groups, space = opened(target, key, 2)
    table = WidthTable(problem, groups, space)
    sizes = [len(choice.options) for choice in space]
    drawn = np.random.default_rng(0).integers(0, sizes, (3, len(sizes)))
    codes = np.concatenate([[table.full], np.zeros((1, len(sizes)), int), drawn])
    wanted = [cost[key] for cost in table.pricer.price([table.widths(row) for row in codes])]
    assert table.of(key)(codes).tolist() == pytest.approx(wanted, rel=1e-9)
    both = table.many((key, "macs"))(codes)
    assert both.shape == (len(codes), 2) and both[:, 0].tolist() == table.of(key)(codes).tolist()


def test_rows_and_widths_name_the_same(opened):
    problem, groups, space = opened("analytic", "macs")
    table = WidthTable(problem, groups, space)
    rows = list(itertools.islice(itertools.product(*[range(len(c.options)) for c in space]), 5))
    assert table.rows([table.widths(row) for row in rows]).tolist() == [list(r) for r in rows]
    first = space.choices[0]
    (row,) = table.rows([{first.name: first.options[0]}])
    assert row.tolist() == [0, *table.full[1:]]


def test_a_table_is_made_once_for_a_problem_and_its_copies(opened):
    problem, groups, space = opened("analytic", "macs")
    table = width_table(problem, groups, space)
    tighter = replace(problem, budget=Budget({"macs": 1e6}))
    assert width_table(tighter, channel_groups(problem.net, problem.example), space) is table
    assert width_table(problem, groups, width_space(groups, 8)) is not table


def test_thinned_widths_keep_both_ends(opened):
    problem, groups, space = opened("analytic", "macs", most=3)
    one = problem.target.alignment
    whole = width_space(groups, one)
    for thin, all_of_them in zip(space, whole, strict=True):
        assert len(thin.options) <= 3 and set(thin.options) <= set(all_of_them.options)
        assert (thin.options[0], thin.options[-1]) == (
            all_of_them.options[0], all_of_them.options[-1],
        )  # fmt: skip
    assert thinned_widths(groups, one, 0) == whole
    with pytest.raises(BadInput):
        thinned_widths(groups, one, 1)


def test_budgets_out_of_reach_or_of_nothing_known_are_refused(opened):
    problem, groups, space = opened("analytic", "macs")
    with pytest.raises(InfeasibleBudget, match="narrowest"):
        WidthTable(replace(problem, budget=Budget({"macs": 10.0})), groups, space).check()
    with pytest.raises(BadInput, match="steer"):
        WidthTable(replace(problem, budget=Budget({"energy_mj": 1.0})), groups, space).check()
