# SPDX-License-Identifier: Apache-2.0
"""Timing on a noisy machine: paired ratios to a reference that runs in between.

Absolute times of the same network drift by 10 % and more between minutes (clock, neighbours on the
host). What repeats within one or two percent is the ratio to a reference network whose samples are
interleaved with the subjects' in one process: per round, every subject and the reference run once,
in random order, and each subject's time is divided by the reference's time *of that round*. The
figure is the median of these ratios over rounds, then over fresh sessions. Times are CPU times
where the work is single-threaded, which leaves out other processes on the core. Minima are never
used: they are the least repeatable of all.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from chipfit.errors import BadInput

#: Runs its network once, or at least asks the device to.
Run = Callable[[], None]
#: Tells the time in seconds.
Clock = Callable[[], float]
#: ``sampler(run, repeats)``: the mean time of one run in seconds, over ``repeats`` runs in a row.
#: Work that a device has been asked for is finished when it returns.
Sampler = Callable[[Run, int], float]


def by_clock(clock: Clock) -> Sampler:
    """Return the sampler of work that is done when its function returns.

    >>> ticks = iter(range(100))
    >>> by_clock(lambda: next(ticks))(lambda: None, 4)
    0.25
    """

    def sample(run: Run, repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            run()
        return (clock() - start) / repeats

    return sample


#: CPU time of this process: the cost of single-threaded work, whatever else the core does.
CPU_TIME = by_clock(time.process_time)
#: Time on the wall, for work of several threads.
WALL_TIME = by_clock(time.perf_counter)


@dataclass(frozen=True)
class Protocol:
    """How long and how often to measure.

    Args:
        min_rounds: Rounds before the stop rule is asked.
        max_rounds: Rounds after which a session ends in any case.
        sessions: Fresh instances of every network: instances differ by 1 to 3 %.
        warm_up: Runs of each network before the first round of a session.
        sample_ms: A sample repeats a network until it takes about this long.
        half_width: The stop rule: half of the 95 % interval of the ratio, relative.
        seed: Of the order within rounds and of the bootstrap.
    """

    min_rounds: int = 20
    max_rounds: int = 60
    sessions: int = 3
    warm_up: int = 8
    sample_ms: float = 2.0
    half_width: float = 0.015
    seed: int = 0

    def __post_init__(self) -> None:
        if not (2 <= self.min_rounds <= self.max_rounds and self.sessions >= 1):
            raise BadInput("a protocol needs 2 <= min_rounds <= max_rounds and a session")


@dataclass(frozen=True)
class Ratio:
    """Time of a subject in units of the reference's time; lower is quicker.

    Args:
        value: Median over sessions of the median over rounds.
        low: Lower end of the 95 % bootstrap interval (sessions, then rounds, resampled).
        high: Upper end.
        rounds: Rounds of all sessions.
        converged: Whether the stop rule ended every session, rather than ``max_rounds``.
    """

    value: float
    low: float
    high: float
    rounds: int
    converged: bool

    @property
    def half_width(self) -> float:
        """Half of the interval, in units of the reference's time."""
        return (self.high - self.low) / 2


def paired_ratios(
    make_subjects: Sequence[Callable[[], Run]],
    make_reference: Callable[[], Run],
    protocol: Protocol | None = None,
    sampler: Sampler = CPU_TIME,
) -> list[Ratio]:
    """Measure subjects against a reference, all interleaved.

    Args:
        make_subjects: Each makes a fresh instance; called once per session.
        make_reference: The same for the reference.
        protocol: Effort; the default where ``None``.
        sampler: Takes the time of runs; CPU time of the process by default.

    Returns:
        One ratio per subject, in order.
    """
    protocol = protocol or Protocol()
    rng = random.Random(protocol.seed)
    per_session: list[list[list[float]]] = [[] for _ in make_subjects]
    converged = [True] * len(make_subjects)
    for _ in range(protocol.sessions):
        runs = [make() for make in (*make_subjects, make_reference)]
        with collection_paused():
            ratios, done = _session(runs, protocol, rng, sampler)
        del runs
        for i, values in enumerate(ratios):
            per_session[i].append(values)
            converged[i] &= done[i]
    return [
        _combine(sessions, ok, protocol.seed)
        for sessions, ok in zip(per_session, converged, strict=True)
    ]


def absolute_ms(
    make_run: Callable[[], Run],
    protocol: Protocol | None = None,
    sampler: Sampler = CPU_TIME,
) -> float:
    """Return the median time of one run in milliseconds, over fresh sessions.

    Good for fixing a currency once; do not compare two such figures with each other.
    """
    protocol = protocol or Protocol()
    medians = []
    for _ in range(protocol.sessions):
        run = make_run()
        with collection_paused():
            inner = _warm_up(run, protocol, sampler)
            medians.append(
                statistics.median(sampler(run, inner) for _ in range(protocol.max_rounds))
            )
    return statistics.median(medians) * 1e3


def same_against_same(
    make_run: Callable[[], Run],
    make_reference: Callable[[], Run],
    protocol: Protocol | None = None,
    sampler: Sampler = CPU_TIME,
    instances: int = 4,
) -> float:
    """Return the A/A spread: how far instances of one network seem apart, relative.

    No difference between two networks that is smaller than this, or than 2 %, means anything on
    this machine at this moment.
    """
    ratios = paired_ratios([make_run] * instances, make_reference, protocol, sampler)
    values = [ratio.value for ratio in ratios]
    return (max(values) - min(values)) / statistics.median(values)


def bootstrap_interval(sessions: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the median over sessions of medians over rounds.

    Sessions are resampled, then rounds within them, so that differences between instances widen
    the interval as they should.
    """
    rng = np.random.default_rng(seed)
    draws = 1000
    medians = np.stack(
        [
            np.median(rng.choice(np.asarray(values), (draws, len(values))), axis=1)
            for values in sessions
        ]
    )  # (sessions, draws)
    picked = rng.integers(0, len(sessions), (len(sessions), draws))
    statistic = np.median(np.take_along_axis(medians, picked, axis=0), axis=0)
    low, high = np.percentile(statistic, [2.5, 97.5])
    return float(low), float(high)


def without_slowest(values: Sequence[float]) -> float:
    """Return the mean of all but the slowest quarter, for counters of whole microseconds.

    >>> without_slowest([1.0, 2.0, 3.0, 90.0])
    2.0
    """
    return float(np.mean(sorted(values)[: max(1, len(values) * 3 // 4)]))


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keep the garbage collector from running inside a sample."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _session(
    runs: Sequence[Run], protocol: Protocol, rng: random.Random, sampler: Sampler
) -> tuple[list[list[float]], list[bool]]:
    """Interleave all runs, the reference last in ``runs``; a subject leaves when it is settled."""
    inner = [_warm_up(run, protocol, sampler) for run in runs]
    reference = len(runs) - 1
    ratios: list[list[float]] = [[] for _ in range(reference)]
    active = set(range(reference))
    for round_ in range(1, protocol.max_rounds + 1):
        order = [*sorted(active), reference]
        rng.shuffle(order)
        times = {i: sampler(runs[i], inner[i]) for i in order}
        for i in active:
            ratios[i].append(times[i] / times[reference])
        if round_ >= protocol.min_rounds and round_ % 5 == 0:
            active = {i for i in active if not _settled(ratios[i], protocol.half_width)}
            if not active:
                break
    return ratios, [_settled(values, protocol.half_width) for values in ratios]


def _settled(values: Sequence[float], half_width: float) -> bool:
    """Whether the distribution-free 95 % interval of the median is narrow enough."""
    ordered = sorted(values)
    n = len(ordered)
    # Ranks of the binomial interval; cheaper than a bootstrap in every round, and as wide.
    reach = 0.98 * math.sqrt(n)
    low = max(0, math.floor((n - 1) / 2 - reach))
    high = min(n - 1, math.ceil((n - 1) / 2 + reach))
    return (ordered[high] - ordered[low]) / 2 <= half_width * statistics.median(ordered)


def _combine(sessions: list[list[float]], converged: bool, seed: int) -> Ratio:
    value = statistics.median(statistics.median(values) for values in sessions)
    low, high = bootstrap_interval(sessions, seed)
    return Ratio(value, min(low, value), max(high, value), sum(map(len, sessions)), converged)


def _warm_up(run: Run, protocol: Protocol, sampler: Sampler) -> int:
    """Run a few times; return how many runs make one sample."""
    for _ in range(protocol.warm_up):
        run()
    once = max(min(sampler(run, 1) for _ in range(3)), 1e-6)
    return max(1, math.ceil(protocol.sample_ms / 1e3 / once))
