# SPDX-License-Identifier: Apache-2.0
"""Whatever is made of architectures of a space is one of it again; sizes and draws are exact."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipfit.errors import BadInput
from chipfit.space import Architecture, Choice, GroupBudget, MultiHotChoice, SearchSpace

WIDTHS = Choice("width", (8, 16, 24, 32), ordered=True)
OPS = Choice("op", ("a", "b", "c"))


@st.composite
def spaces(draw):
    """Spaces of a few choices of all kinds, some tied, some under a budget."""
    choices, pairs = [], []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["categorical", "ordered", "multi-hot"]))
        copies = draw(st.integers(1, 2))
        if kind == "multi-hot":
            members = tuple("dcba"[: draw(st.integers(1, 4))])
            least = draw(st.integers(0, len(members)))
            most = draw(st.integers(least, len(members)))
            made = [MultiHotChoice(f"m{i}{c}", members, least, most) for c in range(copies)]
        else:
            options = tuple(range(1, 1 + draw(st.integers(1, 4))))
            made = [Choice(f"c{i}{c}", options, kind == "ordered") for c in range(copies)]
        choices += made
        if copies == 2 and draw(st.booleans()):
            pairs.append(tuple(c.name for c in made))
    multi = [c for c in choices if isinstance(c, MultiHotChoice)]
    order = draw(st.permutations(choices))
    budgets = ()
    if multi and draw(st.booleans()):
        low, high = sum(c.least for c in multi), sum(c.most for c in multi)
        most = draw(st.integers(low, high))
        # Tied choices step by two, so that not every exact number can be met.
        least = draw(st.integers(0, low if pairs else most))
        budgets = (GroupBudget(tuple(c.name for c in multi), most, least),)
    return SearchSpace(tuple(order), budgets, tuple(pairs))


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_every_operation_stays_in_the_space(space, seed):
    rng = random.Random(seed)
    a, b = space.sample(rng), space.sample(rng)
    children = [
        space.smallest(), space.largest(),
        space.mutate(a, rng), space.mutate(a, rng, 0.0), space.mutate(a, rng, 1.0),
        space.mutate(a, rng, 0.5), space.crossover(a, b, rng),
        space.crossover(a, b, rng, "two-point"), *space.neighbours(a)[:40],
    ]  # fmt: skip
    for child in children:
        assert space.check(child) == child
        for budget in space.budgets:
            assert budget.least <= sum(len(child[n]) for n in budget.names) <= budget.most
        for tie in space.ties:
            assert len({child[name] for name in tie}) == 1
        assert space.decode(space.encode(child)) == child
        assert space.from_one_hot(space.one_hot(child)) == child
        assert space.check(json.loads(json.dumps(child.to_json()))) == child
    assert space.mutate(a, rng, 0.0) == a
    assert a not in space.neighbours(a)


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_the_size_counts_all_architectures(space):
    if space.size > 5000:
        return
    found = list(space.architectures())
    assert len(found) == len(set(found)) == space.size
    assert found[0] == space.smallest()
    assert found[-1] == space.largest()
    assert all(space.check(architecture) == architecture for architecture in found)


@settings(max_examples=30, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_equal_sources_give_equal_architectures(space, seed):
    def walk(source):
        a, b = space.sample(source), space.sample(source)
        return [a, b, space.mutate(a, source), space.crossover(a, b, source),
                space.mutate(b, source, 0.5), space.crossover(a, b, source, "two-point")]  # fmt: skip

    assert walk(random.Random(seed)) == walk(random.Random(seed))
    assert walk(np.random.default_rng(seed)) == walk(np.random.default_rng(seed))
    assert space.sample(seed) == space.sample(random.Random(seed))


@settings(max_examples=30, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_one_mutation_goes_somewhere_if_it_can(space, seed):
    a = space.sample(seed)
    moved = space.mutate(a, seed)
    assert (moved != a) or all(len(d.choice.options) == 1 for d in space.decisions.free) or (
        space.budgets != ()
    )  # fmt: skip


def test_a_mutation_is_a_neighbour():
    space = SearchSpace((WIDTHS, OPS, MultiHotChoice("m", ("x", "y", "z"), 1, 2)))
    a = space.sample(0)
    reached = {space.mutate(a, random.Random(seed)) for seed in range(300)}
    assert reached == set(space.neighbours(a))


def test_neighbours_of_each_kind():
    space = SearchSpace((WIDTHS, OPS, MultiHotChoice("m", ("x", "y", "z"), 1, 2)))
    found = space.neighbours({"width": 16, "op": "b", "m": ("x",)})
    assert {a["width"] for a in found} == {8, 16, 24}
    assert {a["op"] for a in found} == {"a", "b", "c"}
    assert {a["m"] for a in found} == {("x",), ("y",), ("z",), ("x", "y"), ("x", "z")}
    assert len(found) == 2 + 2 + 4


def test_under_an_exact_budget_a_member_moves_from_choice_to_choice():
    members = ("p", "q")
    space = SearchSpace(
        (MultiHotChoice("u", members), MultiHotChoice("v", members)),
        (GroupBudget(("u", "v"), 2, 2),),
    )
    assert space.size == 6  # two of four
    found = space.neighbours({"u": ("p", "q"), "v": ()})
    assert {(a["u"], a["v"]) for a in found} == {
        (("p",), ("p",)), (("p",), ("q",)), (("q",), ("p",)), (("q",), ("q",)),
    }  # fmt: skip
    a = space.check({"u": ("p", "q"), "v": ()})
    assert {space.mutate(a, seed) for seed in range(60)} == set(found)


def test_the_budget_of_repnas_has_the_size_of_a_binomial():
    """22 layers of 6 branches, K = 44 of 132: an exact number of 122 bits."""
    import math

    names = tuple(f"b{i:02d}" for i in range(22))
    branches = ("1x1", "1x1-avg", "1x3", "3x1", "3x3", "1x1-3x3")
    space = SearchSpace(
        tuple(MultiHotChoice(n, branches) for n in names), (GroupBudget(names, 44, 44),)
    )
    assert space.size == math.comb(132, 44)
    drawn = space.sample(0)
    assert sum(map(len, drawn.values())) == 44


def test_budgeted_samples_are_uniform():
    """Chi-squared over the 11 subsets of at most two of four, 22,000 draws of one seed."""
    space = SearchSpace(
        (MultiHotChoice("u", ("p", "q")), MultiHotChoice("v", ("p", "q"))),
        (GroupBudget(("u", "v"), 2),),
    )
    rng = random.Random(1)
    seen = Counter(space.sample(rng) for _ in range(22_000))
    assert len(seen) == space.size == 11
    chi2 = sum((n - 2000) ** 2 / 2000 for n in seen.values())
    assert chi2 < 29.6  # 0.1 % of the chi-squared distribution with 10 degrees of freedom


def test_samples_of_plain_spaces_are_those_of_earlier_versions():
    space = SearchSpace((WIDTHS, OPS))
    draw = random.Random(7)
    assert space.sample(7) == {"width": draw.choice(WIDTHS.options), "op": draw.choice(OPS.options)}


def test_ties_count_once_and_are_checked():
    space = SearchSpace((OPS, WIDTHS, Choice("op2", OPS.options))).tied("op", "op2")
    assert space.size == 12
    assert space.encode(space.sample(0)).shape == (3,)
    with pytest.raises(BadInput, match="op, op2 are tied"):
        space.check({"op": "a", "op2": "b", "width": 8})
    less = space.restricted({"op2": ["b", "c"]})
    assert less["op"].options == less["op2"].options == ("b", "c")


def test_restriction_keeps_the_order_and_names_what_is_wrong():
    space = SearchSpace((WIDTHS, OPS, MultiHotChoice("m", ("z", "x", "y"), 1)))
    less = space.restricted({"width": [32, 8], "m": ["y", "z"]})
    assert less["width"].options == (8, 32)
    assert less["width"].ordered
    assert less["m"].members == ("z", "y")
    assert less.size == 2 * 3 * 3
    assert space.size == 4 * 3 * 7
    for allowed, message in [
        ({"width": [9]}, "width cannot be 9"),
        ({"op": []}, "nothing would be left of op"),
        ({"depth": [1]}, "no choice is called 'depth'"),
        ({"m": ["w"]}, "no member w"),
        ({"m": []}, "too little would be left of m"),
    ]:
        with pytest.raises(BadInput, match=message):
            space.restricted(allowed)


def test_one_hot_vectors_of_real_numbers_mean_the_largest():
    space = SearchSpace((OPS, MultiHotChoice("m", ("z", "x"))))
    found = space.from_one_hot([0.1, 0.7, 0.2, 0.6, 0.4])
    assert found == {"op": "b", "m": ("z",)}
    assert space.one_hot(found).tolist() == [0, 1, 0, 1, 0]
    assert space.codes([found, found]).tolist() == [[1, 2], [1, 2]]


def test_crossovers_take_from_the_parents_alone():
    names = [f"c{i}" for i in range(8)]
    space = SearchSpace(tuple(Choice(n, (0, 1)) for n in names))
    zeros, ones = space.smallest(), space.largest()
    runs = set()
    for seed in range(200):
        child = "".join(str(space.crossover(zeros, ones, seed, "two-point")[n]) for n in names)
        assert "1" in child
        assert "0" not in child.strip("0"), "one stretch"
        runs.add(child)
    assert len(runs) == 36  # all stretches of 8 are reached
    uniform = {space.crossover(zeros, ones, seed) for seed in range(400)}
    assert len(uniform) > 150
    with pytest.raises(BadInput, match="no crossover is called 'one-point'"):
        space.crossover(zeros, ones, 0, "one-point")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchSpace((OPS, OPS)), "same name"),
        (lambda: SearchSpace((OPS, WIDTHS), (), (("op", "width"),)), "different options"),
        (lambda: SearchSpace((OPS,), (), (("op", "no"),)), "no choice of the space"),
        (lambda: SearchSpace((OPS,), (GroupBudget(("op",), 3, 2),)), "cannot be taken together"),
        (lambda: SearchSpace((OPS,), (GroupBudget(("op",), 2),) * 2), "twice"),
        (lambda: GroupBudget((), 3), "needs the names"),
        (lambda: GroupBudget(("a",), 1, 2), "2 to 1"),
        (lambda: MultiHotChoice("m", ()), "needs members"),
        (lambda: MultiHotChoice("m", ("a", "a")), "different names"),
        (lambda: MultiHotChoice("m", ("a",), 2), "2 to 1"),
        (lambda: MultiHotChoice("m", [str(i) for i in range(17)]), "65536"),
        (lambda: SearchSpace((OPS,)).mutate({"op": "a"}, 0, 1.5), "rate of 1.5"),
        (lambda: SearchSpace((OPS,)).decode([3]), "no option 3 of op"),
        (lambda: SearchSpace((OPS,)).decode([1, 1]), "2 option indices"),
        (lambda: SearchSpace((OPS,)).from_one_hot([1]), "1 values"),
        (lambda: MultiHotChoice("m", ("a", "b"), 1).from_bits([0, 0]), "1 to 2 of a, b"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_architectures_read_from_json_are_equal():
    space = SearchSpace((MultiHotChoice("m", ("b", "a")),))
    found = space.check({"m": ["b", "a"]})
    assert found == Architecture({"m": ("a", "b")})
    assert found.id == Architecture({"m": ["a", "b"]}).id
