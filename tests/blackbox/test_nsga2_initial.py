import pytest

from chipfit.blackbox import NSGA2, Evaluation, search
from chipfit.errors import BadInput

ROWS = [(0, 1, 2), (2, 2, 0), (1, 1, 1)]


def evaluate(rows):
    return [Evaluation(r, (float(sum(r)), float(r[0]))) for r in rows]


def test_a_given_first_generation_is_evaluated_first_and_survives_a_restart():
    made = [NSGA2((3, 3, 3), seed=1, population=4, initial=ROWS) for _ in range(2)]
    search(made[0], evaluate, 12, 2)
    assert [e.row for e in made[0].evaluations[:3]] == ROWS
    assert made[0].generation >= 2
    first = made[1].ask(2)
    again = NSGA2((3, 3, 3), seed=1, population=4)
    again.load_state_dict(made[1].state_dict())
    assert again.pending == first
    search(again, evaluate, 12, 2)
    assert again.evaluations == made[0].evaluations


def test_of_equal_rows_one_is_taken_and_at_most_a_population():
    strategy = NSGA2((3, 3, 3), population=2, initial=[ROWS[0], ROWS[0], ROWS[1], ROWS[2]])
    assert strategy.ask(2) == ROWS[:2] and not strategy.ask(1)


@pytest.mark.parametrize("row", [(0, 1), (0, 1, 3), (-1, 0, 0)])
def test_rows_of_another_space_are_refused(row):
    with pytest.raises(BadInput, match="none of a space"):
        NSGA2((3, 3, 3), initial=[row])
