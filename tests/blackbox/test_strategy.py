import json
import math
import random
from collections import Counter

import pytest

from chipfit.blackbox import (
    NSGA2,
    STRATEGIES,
    Evaluation,
    RandomSearch,
    RegularisedEvolution,
    Reinforce,
    search,
    window_violation,
)
from chipfit.blackbox.coding import Coding
from chipfit.blackbox.order import RandomOrder
from chipfit.errors import BadInput
from chipfit.space import Choice, SearchSpace

SIZES = (3, 1, 4, 2, 3)
TARGET = (2, 0, 1, 1, 0)

MAKERS = {
    "random": lambda seed=0, sizes=SIZES: RandomSearch(sizes, ("max",), seed),
    "evolution": lambda seed=0, sizes=SIZES: RegularisedEvolution(sizes, ("max",), seed, 8, 3),
    "nsga2": lambda seed=0, sizes=SIZES: NSGA2(sizes, ("max",), seed, population=8),
    "reinforce": lambda seed=0, sizes=SIZES: Reinforce(sizes, ("max",), seed, 0.2, batch=2),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def value(row):
    """Of one best row, `TARGET`, and rugged elsewhere."""
    hits = sum(a == b for a, b in zip(row, TARGET, strict=True))
    return hits + 0.01 * math.sin(sum((i + 1) * o for i, o in enumerate(row)))


def evaluate(rows):
    return [Evaluation(row, (value(row),)) for row in rows]


def test_all_strategies_are_listed():
    assert set(STRATEGIES.values()) == {type(make()) for make in MAKERS.values()}


@each
@pytest.mark.parametrize("batch", [1, 7])
def test_every_architecture_is_asked_once_and_the_search_ends(make, batch):
    strategy = make()
    search(strategy, evaluate, 10_000, batch)
    rows = [evaluation.row for evaluation in strategy.evaluations]
    assert len(rows) == len(set(rows)) == math.prod(SIZES)
    assert strategy.exhausted and strategy.ask(3) == []
    assert strategy.front()[0].row == max(rows, key=value)


@each
def test_the_same_seed_gives_the_same_search(make):
    runs = []
    for seed in (1, 1, 2):
        strategy = make(seed, (4,) * 5)
        search(strategy, lambda rows: [Evaluation(r, (float(sum(r)),)) for r in rows], 60, 3)
        runs.append([e.row for e in strategy.evaluations])
    assert runs[0] == runs[1] != runs[2]


@each
@pytest.mark.parametrize("stop", [1, 8, 13, 40])
def test_a_search_continues_from_its_state_as_if_nothing_had_happened(make, stop):
    def figures(rows):
        return [Evaluation(r, (math.sin(sum(i * o for i, o in enumerate(r, 1))),)) for r in rows]

    whole, killed, resumed = (make(5, (4,) * 5) for _ in range(3))
    search(whole, figures, 90, 4)
    search(killed, figures, stop, 4)
    killed.ask(4)  # killed before any of these was evaluated
    state = json.loads(json.dumps(killed.state_dict(), allow_nan=False))
    resumed.load_state_dict(state)
    assert resumed.pending == killed.pending
    search(resumed, figures, 90, 4)
    reference = make(5, (4,) * 5)
    search(reference, figures, stop, 4)
    search(reference, figures, 90, 4)
    assert resumed.evaluations == reference.evaluations
    assert resumed.state_dict() == reference.state_dict()
    if stop % 4 == 0:
        assert resumed.evaluations == whole.evaluations


@each
def test_states_of_others_are_refused(make):
    state = make(0).state_dict()
    with pytest.raises(BadInput, match="sizes"):
        make(0, (2, 2)).load_state_dict(state)
    other = MAKERS["evolution" if state["strategy"] == "random" else "random"]()
    with pytest.raises(BadInput, match="strategy"):
        other.load_state_dict(state)


@each
def test_what_was_not_asked_for_or_is_no_figure_is_refused(make):
    strategy = make()
    (row,) = strategy.ask()
    other = tuple((option + 1) % size for option, size in zip(row, SIZES, strict=True))
    with pytest.raises(BadInput, match="not pending"):
        strategy.tell(other, (1.0,))
    for wrong in ((), (1.0, 2.0), (float("nan"),), (float("inf"),)):
        with pytest.raises(BadInput, match="finite figure"):
            strategy.tell(row, wrong)
    strategy.tell(row, (1.0,))
    with pytest.raises(BadInput, match="not pending"):
        strategy.tell(row, (1.0,))
    with pytest.raises(BadInput):
        strategy.ask(0)


@each
def test_minimising_is_maximising_the_negative(make):
    strategy = make(3)
    mirrored = type(strategy)(SIZES, ("min",), 3, **_settings(strategy))
    search(strategy, evaluate, 40)
    search(mirrored, lambda rows: [Evaluation(r, (-value(r),)) for r in rows], 40)
    assert [e.row for e in strategy.evaluations] == [e.row for e in mirrored.evaluations]


def _settings(strategy):
    return strategy.state_dict()["settings"]


def test_one_objective_is_not_two():
    for kind in (RegularisedEvolution, Reinforce):
        with pytest.raises(BadInput, match="one objective"):
            kind(SIZES, ("max", "min"))
    with pytest.raises(BadInput, match="option"):
        RandomSearch((3, 0))


def test_a_row_that_evaluate_forgets_is_an_error():
    with pytest.raises(BadInput, match="returned nothing"):
        search(MAKERS["random"](), lambda rows: evaluate(rows[1:]), 4, 2)


def test_random_order_is_a_permutation_and_uniform():
    first = Counter()
    for seed in range(600):
        order, rng = RandomOrder((2, 3)), random.Random(seed)
        rows = [order.draw(rng) for _ in range(6)]
        assert len(set(rows)) == 6 and order.draw(rng) is None
        first.update([rows[0], ("last", rows[-1])])
    # 600 draws of six rows: 100 each, with a standard deviation of 9.
    assert len(first) == 12 and all(60 < count < 140 for count in first.values())


def test_random_order_of_a_space_beyond_64_bits():
    order, rng = RandomOrder((19,) * 21), random.Random(0)
    rows = {order.draw(rng) for _ in range(50)}
    assert len(rows) == 50 and all(len(row) == 21 and max(row) < 19 for row in rows)
    again = RandomOrder((19,) * 21)
    again.load_state_dict(json.loads(json.dumps(order.state_dict())))
    state = rng.getstate()
    expected = order.draw(rng)
    rng.setstate(state)
    assert again.draw(rng) == expected


def test_window():
    assert window_violation(55.0, 50.0, 60.0) == 0.0
    assert window_violation(50.0, 50.0, 60.0) == window_violation(60.0, 50.0, 60.0) == 0.0
    assert window_violation(40.0, 50.0, 60.0) == pytest.approx(0.2)
    assert window_violation(90.0, high=60.0) == pytest.approx(0.5)


def test_coding_ties_share_a_place():
    widths = tuple(Choice(name, (8, 16, 24)) for name in ("a", "c"))
    space = SearchSpace((widths[0], Choice("b", ("x", "y")), widths[1]), ties=(("a", "c"),))
    coding = Coding(space)
    assert coding.sizes == (3, 2)
    architectures = list(space.architectures())
    rows = [coding.row(architecture) for architecture in architectures]
    assert len(set(rows)) == space.size == 6
    assert [coding.architecture(row) for row in rows] == architectures
    assert dict(coding.architecture((2, 1))) == {"a": 24, "b": "y", "c": 24}
    with pytest.raises(BadInput, match="does not fit"):
        coding.architecture((3, 0))
