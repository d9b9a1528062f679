import pytest

from chipfit.errors import BadInput
from chipfit.methods.schedule import ReductionSchedule, spanning


@pytest.mark.parametrize("decay", [1.0, 0.96, 0.9, 0.5])
@pytest.mark.parametrize("steps", [1, 3, 10, 40])
def test_reach_is_what_the_steps_add_up_to(decay, steps):
    schedule = ReductionSchedule(0.02, decay, steps)
    total = sum(schedule.reduction(i) for i in range(1, steps + 1))
    assert schedule.reach() == pytest.approx(1 - total)


def test_the_released_defaults_cannot_reach_their_own_budget():
    # dR_0 = 2.5 %, decay 0.96: 37.5 % is the limit, and 55.9 % what 30 steps reach.
    assert ReductionSchedule(0.025, 0.96, 10_000).reach() == pytest.approx(0.375)
    schedule = ReductionSchedule(0.025, 0.96, 30)
    assert schedule.reach() == pytest.approx(0.559, abs=5e-4)
    with pytest.raises(BadInput, match=r"55\.9%") as caught:
        schedule.check(0.25)
    needed = float(caught.value.hint.split("to ")[1].split(" ")[0])
    ReductionSchedule(needed + 1e-4, 0.96, 30).check(0.25)


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.25])
@pytest.mark.parametrize("decay", [1.0, 0.96, 0.8])
def test_a_spanning_schedule_reaches_exactly(fraction, decay):
    schedule = spanning(fraction, decay, 7)
    assert schedule.reach() == pytest.approx(fraction)
    schedule.check(fraction)


@pytest.mark.parametrize(
    "values", [(0, 0.9, 5), (1.5, 0.9, 5), (0.1, 0, 5), (0.1, 1.1, 5), (0.1, 1, 0)]
)
def test_nonsense_is_refused(values):
    with pytest.raises(BadInput):
        ReductionSchedule(*values)
