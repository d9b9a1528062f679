import itertools
import math

import pytest

from chipfit.errors import BadInput
from chipfit.methods.smcp_schedule import KINDS, PruningSchedule

START, END = {"macs": 100.0, "params": 8.0}, {"macs": 20.0, "params": 9.0}


@pytest.mark.parametrize("kind", KINDS)
def test_budgets_fall_from_step_to_step_and_end_where_they_must(kind):
    schedule = PruningSchedule(900, every=10, kind=kind)
    steps = [step for step in range(900) if schedule.rewires(step)]
    assert (steps[0], steps[-1]) == (100, 650)  # 10, 55 and 25 of 90 epochs
    assert steps[:3] == [100, 110, 120]
    macs = [schedule.limits(step, START, END)["macs"] for step in steps]
    assert all(a > b for a, b in itertools.pairwise(macs))
    assert macs[0] < 100.0 and macs[-1] == 20.0
    assert all(schedule.limits(step, START, END)["params"] == 9.0 for step in steps)


def test_the_ways_down_are_what_their_formulas_say():
    def halfway(kind):
        # 10 steps of 10 from 0 to 90: at 40 the way is done by half.
        schedule = PruningSchedule(100, every=10, warmup=0.0, cooldown=0.1, kind=kind)
        assert schedule.last == 90
        return schedule.limits(40, {"macs": 100.0}, {"macs": 25.0})["macs"]

    assert halfway("linear") == pytest.approx(62.5)
    assert halfway("force") == pytest.approx(50.0)  # the geometric mean
    way = (1 - math.exp(-0.05 * 27.5)) / (1 - math.exp(-0.05 * 55))
    assert halfway("exponential") == pytest.approx(100 - 75 * way)


def test_the_shortest_schedules_still_ask_for_the_whole_budget():
    for steps in (1, 2, 3, 7):
        schedule = PruningSchedule(steps, every=5)
        found = [step for step in range(steps) if schedule.rewires(step)]
        assert found and schedule.limits(found[-1], START, END) == END
        assert found[-1] == schedule.last


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"every": 0}, {"kind": "luck"}, {"warmup": 0.6, "cooldown": 0.4}]
)
def test_schedules_out_of_range_are_refused(wrong):
    with pytest.raises(BadInput, match="schedule"):
        PruningSchedule(**{"steps": 10, **wrong})
