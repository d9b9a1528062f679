# SPDX-License-Identifier: Apache-2.0
import gc
import random

import numpy as np
import pytest

from chipfit.errors import BadInput
from chipfit.targets.timing import (
    Protocol,
    absolute_ms,
    bootstrap_interval,
    by_clock,
    collection_paused,
    paired_ratios,
    same_against_same,
)


class Machine:
    """A clock that runs advance, with a speed that drifts by a factor of four and jitters."""

    def __init__(self, jitter=0.0, drift=0.0, seed=1):
        self.now, self.calls = 0.0, 0
        self.jitter, self.drift = jitter, drift
        self.rng = random.Random(seed)

    def clock(self):
        return self.now

    def maker(self, cost_ms):
        def run():
            self.calls += 1
            slow = 1 + self.drift * self.calls
            self.now += cost_ms / 1e3 * slow * (1 + self.jitter * self.rng.random())

        return lambda: run


def test_ratios_are_exact_without_noise():
    machine = Machine()
    makers = [machine.maker(ms) for ms in (1.0, 3.0, 40.0)]
    ratios = paired_ratios(makers, machine.maker(2.0), sampler=by_clock(machine.clock))
    assert [r.value for r in ratios] == pytest.approx([0.5, 1.5, 20.0])
    assert all(r.converged and r.rounds == 3 * 20 for r in ratios)
    assert all(r.half_width < 1e-9 for r in ratios)


def test_drift_hits_absolute_times_but_not_ratios():
    machine = Machine(drift=1e-3)
    first, second = (
        paired_ratios([machine.maker(6.0)], machine.maker(3.0), sampler=by_clock(machine.clock))[
            0
        ].value
        for _ in range(2)
    )
    assert first == pytest.approx(2.0, rel=0.01)
    assert second == pytest.approx(first, rel=0.01)
    still = Machine(drift=1e-3)
    before = absolute_ms(still.maker(6.0), sampler=by_clock(still.clock))
    assert absolute_ms(still.maker(6.0), sampler=by_clock(still.clock)) > 1.1 * before


def test_noise_is_told_and_the_cap_admitted():
    machine = Machine(jitter=1.0)
    ratio = paired_ratios(
        [machine.maker(2.0)], machine.maker(2.0), sampler=by_clock(machine.clock)
    )[0]
    assert not ratio.converged
    assert ratio.rounds == 3 * 60
    assert ratio.low < 1 < ratio.high
    assert ratio.low <= ratio.value <= ratio.high


def test_short_networks_are_repeated_within_a_sample():
    machine = Machine()
    protocol = Protocol(min_rounds=5, max_rounds=5, sessions=1, warm_up=2)
    paired_ratios([machine.maker(0.15)], machine.maker(2.0), protocol, by_clock(machine.clock))
    assert machine.calls == (2 + 3 + 5 * 14) + (2 + 3 + 5 * 1)


def test_same_against_same_is_zero_only_without_noise():
    quiet, loud = Machine(), Machine(jitter=0.5)
    calm = same_against_same(quiet.maker(3), quiet.maker(2), sampler=by_clock(quiet.clock))
    assert calm == pytest.approx(0, abs=1e-9)
    assert 0 < same_against_same(loud.maker(3), loud.maker(2), sampler=by_clock(loud.clock)) < 0.5


def test_the_interval_covers_the_median_at_its_level():
    rng = np.random.default_rng(0)
    covered = sum(
        low <= 1.0 <= high
        for low, high in (
            bootstrap_interval([rng.normal(1.0, 0.1, 30) for _ in range(3)], seed)
            for seed in range(100)
        )
    )
    assert covered >= 90
    low, high = bootstrap_interval([[1.0] * 20, [1.1] * 20, [1.2] * 20])
    assert (low, high) == (1.0, 1.2)  # instances that differ widen it


def test_the_collector_is_restored():
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), collection_paused():
        1 / gc.isenabled()
    assert gc.isenabled()


def test_impossible_protocols_are_refused():
    with pytest.raises(BadInput):
        Protocol(min_rounds=30, max_rounds=20)
    with pytest.raises(BadInput):
        Protocol(sessions=0)
