# SPDX-License-Identifier: Apache-2.0
"""The Pareto front against brute force, the axes, and the member that is put forward."""

import itertools
import random
from pathlib import Path

import pytest

from chipfit.errors import BadInput
from chipfit.report.data import Journal, Member, RunData
from chipfit.report.front import best, choosing_metric, default_axes, front, pareto_front
from chipfit.report.quantity import NBSP, change, quantity, show


def brute_force(points, directions):
    def no_worse(a, b, direction):
        return a <= b if direction == "min" else a >= b

    def dominates(p, q):
        pairs = list(zip(p, q, directions, strict=True))
        return all(no_worse(*pair) for pair in pairs) and p != q

    return [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]


@pytest.mark.parametrize("directions", list(itertools.product(("min", "max"), repeat=2)))
def test_front_of_all_small_grids(directions):
    grid = list(itertools.product(range(3), repeat=2))
    for size in range(4):
        for points in itertools.product(grid, repeat=size):
            assert pareto_front(points, directions) == brute_force(points, directions)


@pytest.mark.parametrize("seed", range(12))
def test_front_of_random_points_in_up_to_four_dimensions(seed):
    dice = random.Random(seed)
    directions = [dice.choice(("min", "max")) for _ in range(1 + seed % 4)]
    levels = dice.choice((3, 8, 10**6))
    points = [
        tuple(dice.randrange(levels) / levels for _ in directions)
        for _ in range(dice.randrange(1, 120))
    ]
    assert pareto_front(points, directions) == brute_force(points, directions)


def test_bad_directions_and_lengths_are_refused():
    with pytest.raises(BadInput, match="directions"):
        pareto_front([(1.0,)], ("up",))
    with pytest.raises(BadInput, match="every point"):
        pareto_front([(1.0, 2.0)], ("min",))


def family(members, budget=None):
    return RunData(Path(), {}, {}, tuple(members), budget or {}, Journal())


def member(name, latency_ms, **metrics):
    cost = {} if latency_ms is None else {"latency_ms": latency_ms}
    return Member(name, metrics, cost)


def test_a_metric_to_minimise_turns_the_front_round():
    run = family([member("a", 1.0, val_loss=0.9), member("b", 2.0, val_loss=0.5)])
    run = family([*run.members, member("c", 3.0, val_loss=0.6), member("d", 0.5)])
    assert [m.id for m in front(run, "val_loss", "latency_ms")] == ["a", "b"]


def test_best_is_the_most_accurate_within_the_budget_on_validation_data():
    members = [
        member("original", 2.0, val_accuracy=0.95, test_accuracy=0.95),
        member("a", 1.0, val_accuracy=0.90, test_accuracy=0.80),
        member("b", 0.9, val_accuracy=0.89, test_accuracy=0.99),
    ]
    run = family(members, {"latency_ms": 1.0})
    assert choosing_metric(run) == "val_accuracy"
    assert best(run).id == "a"
    assert best(family(members)).id == "a"
    assert best(family(members, {"latency_ms": 0.5})).id == "b"
    assert best(family(members, {"latency_ms": 5.0})).id == "original"


def test_best_of_nothing_is_none():
    assert best(family([])) is None
    assert best(family([member("a", 1.0)])) is None
    assert best(family([member("a", None, val_accuracy=0.5)], {"latency_ms": 1.0})) is None


def test_the_budget_needs_every_bound():
    both = Member("a", {}, {"latency_ms": 1.0, "peak_sram_bytes": 100})
    run = family([both], {"latency_ms": 1.0, "peak_sram_bytes": 100})
    assert run.meets_budget(both) is True
    assert run.meets_budget(Member("b", {}, {"latency_ms": 1.0})) is None
    assert run.meets_budget(Member("c", {}, {"latency_ms": 1.1})) is False
    assert family([both]).meets_budget(both) is None


def test_axes_show_what_most_members_have():
    first = member("original", 1.0, val_accuracy=0.9, test_accuracy=0.9, int8_test_accuracy=0.9)
    run = family([first, member("a", 0.5, val_accuracy=0.8)])
    assert default_axes(run) == ("val_accuracy", "latency_ms")
    assert default_axes(family([first])) == ("int8_test_accuracy", "latency_ms")
    assert default_axes(family([])) is None
    two = Member("a", {"val_accuracy": 0.8}, {"latency_ms": 1.0, "macs": 5})
    assert default_axes(family([two], {"macs": 4})) == ("val_accuracy", "macs")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("latency_ms", 0.41, "0.4100 ms"),
        ("latency_ms", 12.345, "12.35 ms"),
        ("latency_ms", 1234.5, "1234 ms"),
        ("val_accuracy", 0.91234, "91.23 %"),
        ("macs", 301_000_000, "301.0 M"),
        ("macs", 950, "950"),
        ("params", 1.5e9, "1.500 G"),
        ("peak_sram_bytes", 96 * 1024, "96.00 KiB"),
        ("peak_sram_bytes", 512, "512 B"),
        ("energy_mj", None, "—"),
    ],
)
def test_figures_are_written_with_their_units(key, value, text):
    assert show(value, quantity(key)).replace(NBSP, " ") == text


def test_changes_are_points_or_per_cent():
    accuracy, latency = quantity("val_accuracy"), quantity("latency_ms")
    assert change(0.9, 0.91, accuracy).replace(NBSP, " ") == "−1.00 pt"
    assert change(0.91, 0.9, accuracy).replace(NBSP, " ") == "+1.00 pt"
    assert change(0.5, 1.0, latency).replace(NBSP, " ") == "−50.0 %"
    assert change(1.0, 1.0, latency).replace(NBSP, " ") == "0.0 %"
    assert change(0.9999999, 1.0, latency).replace(NBSP, " ") == "0.0 %"
    assert change(None, 1.0, latency) == "—"
    assert change(1.0, 0.0, latency) == "—"
    assert quantity("val_psnr_db", metric=True).direction == "max"
    assert quantity("val_loss", metric=True).direction == "min"
