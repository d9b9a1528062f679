# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import nn

from chipfit.cost import Cost
from chipfit.cost.model import CalibrationModel
from chipfit.cost.predict import predict_total
from chipfit.cost.slot import DENSE, Slot, merged_order
from chipfit.cost.table import CostTable
from chipfit.cost.vectorised import VectorisedCost
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.resize import resize
from chipfit.space import Architecture, Choice, SearchSpace
from chipfit.targets import create
from chipfit.targets.analytic import Analytic
from chipfit.targets.windows import neighbour_units
from chipfit.workers import WorkerPool


class Neighbourly(Analytic):
    """Every operator costs something for itself and for what is around it."""

    fingerprint = "neighbourly 1"
    parallel = True

    def units(self, workload):
        return neighbour_units(workload, (1, 1))

    def cost_units(self, units):
        return [
            Cost(
                {
                    "latency_ms": (u.workload.macs / 7 + u.workload.nodes[u.focus[0]].op.macs)
                    / 3e4,
                    "cycles": u.workload.macs,
                },
                "compiled",
            )
            for u in units
        ]


class Fixed(Neighbourly):
    fingerprint = "fixed 1"

    def fixed_cost(self):
        return {"latency_ms": 0.1}


SPACE = SearchSpace(
    (
        Choice("depth", (1, 2, 3), ordered=True),
        Choice("a", (8, 16, 24)),
        Choice("b", (8, 16)),
        Choice("c", (16, 40)),
    )
)


@pytest.fixture
def build(bottlenecks):
    def build(architecture):
        widths = [architecture["a"], architecture["b"], architecture["c"]]
        return bottlenecks(widths[: architecture["depth"]])

    return build


def everything(cost):
    return np.array(list(np.ndindex(*[len(own) for own in cost.choices.values()])))


@pytest.mark.parametrize("key", ["latency_ms", "cycles"])
@pytest.mark.parametrize("calibration", [None, 1.7, CalibrationModel(0.9, 3.0, 0.02)])
@pytest.mark.parametrize("target", [Neighbourly(), Fixed()], ids=lambda t: t.fingerprint)
def test_every_architecture_costs_what_a_single_query_says(build, key, calibration, target):
    table = CostTable()
    fast = VectorisedCost(SPACE, build, target, table, key, calibration)
    codes = everything(fast)
    assert fast.fill(codes) > 0
    assert not fast.missing(codes).any()
    single = [
        predict_total(build(fast.decode(row)), target, table, calibration)[key] for row in codes
    ]
    assert fast.cost(codes).tolist() == single


def test_widths_on_a_compiled_target():
    pytest.importorskip("ethosu")
    net = nn.Sequential(
        nn.Conv2d(8, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 16, 1),
        nn.Conv2d(16, 8, 1),
    )  # fmt: skip
    whole = trace(net, torch.zeros(1, 8, 8, 8))
    space = SearchSpace((Choice("hidden", (8, 16, 24)), Choice("out", (8, 16))))

    def build(a):  # two layers share a width
        return resize(whole, {"0": a["hidden"], "1": a["hidden"], "2": a["out"]})

    target, table = create("ethos-u55-128"), CostTable()
    fast = VectorisedCost(space, build, target, table)
    codes = everything(fast)
    fast.fill(codes)
    single = [predict_total(build(fast.decode(row)), target, table)["latency_ms"] for row in codes]
    assert fast.cost(codes).tolist() == single
    assert len(set(single)) > 1


def test_layers_depend_on_their_neighbours_choices_only(build):
    fast = VectorisedCost(SPACE, build, Neighbourly(), CostTable())
    names = list(fast.choices)
    found = {slot.name: {names[i] for i in slot.choices} for slot in fast.slots}
    assert found["b0.expand"] == {"a"}
    assert found["b1.expand"] == {"b", "depth"}
    assert found["b0.add"] == {"a", "b", "depth"}  # read by the second block, where there is one
    assert found["b2.depth"] == {"c", "depth"}
    assert [slot.name for slot in fast.slots] == [
        node.name for node in build({"depth": 3, "a": 8, "b": 8, "c": 16}).nodes
    ]


def test_a_price_that_is_absent_is_an_error_until_it_is_filled(build):
    table = CostTable()
    fast = VectorisedCost(SPACE, build, Neighbourly(), table)
    codes = fast.encode([SPACE.smallest(), SPACE.largest()])
    assert fast.missing(codes).all()
    with pytest.raises(BadInput, match="2 of 2 architectures"):
        fast.cost(codes)
    assert fast.fill(codes[:1]) == 2  # built to be checked, and to be priced
    assert fast.missing(codes).tolist() == [False, True]
    seen = []
    fast.fill(codes, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert np.isfinite(fast.cost(codes)).all()
    assert fast.fill(codes) == 2  # both are checked, neither needs a price


def test_a_filled_table_needs_no_filling(build):
    table = CostTable()
    first = VectorisedCost(SPACE, build, Neighbourly(), table)
    codes = everything(first)
    first.fill(codes)
    second = VectorisedCost(SPACE, build, Neighbourly(), table, seed=5)
    second.fill(codes)
    assert (second.cost(codes) == first.cost(codes)).all()


def test_a_rare_dependence_is_found_when_it_is_met(bottlenecks):
    options = tuple(range(12))
    space = SearchSpace(tuple(Choice(name, options) for name in "pqrs"))

    def build(a):  # `s` matters only where all the others take one option of twelve
        rare = a["p"] == a["q"] == a["r"] == 11
        return bottlenecks([16, 8 + 8 * a["s"] if rare else 8])

    target, table = Neighbourly(), CostTable()
    fast = VectorisedCost(space, build, target, table)
    rows = [{"p": 11, "q": 11, "r": 11, "s": s} for s in options] + [dict.fromkeys("pqrs", 3)]
    codes = fast.encode(rows)
    fast.fill(codes)
    single = [predict_total(build(row), target, table)["latency_ms"] for row in rows]
    assert fast.cost(codes).tolist() == single


def test_no_network_is_built_twice_to_be_priced(build):
    built = []

    def counting(architecture):
        built.append(tuple(architecture.values()))
        return build(architecture)

    cost = VectorisedCost(SPACE, counting, Neighbourly(), CostTable())
    every = everything(cost)
    assert cost.fill(every) and len(built) == len(set(built))


def test_filling_may_use_workers(build):
    alone, together = CostTable(), CostTable()
    a = VectorisedCost(SPACE, build, Neighbourly(), alone)
    b = VectorisedCost(SPACE, build, Neighbourly(), together)
    codes = everything(a)
    a.fill(codes)
    with WorkerPool(1) as pool:
        b.fill(codes, pool)
    assert (a.cost(codes) == b.cost(codes)).all()


def test_an_integer_program_can_read_the_prices(build):
    fast = VectorisedCost(SPACE, build, Fixed(), CostTable())
    codes = everything(fast)
    fast.fill(codes)
    latency = fast.cost(codes)
    layers = fast.additive_costs()
    assert layers[-1] == ("", (), {(): 0.1})
    for row, expected in zip(codes[::5], latency[::5], strict=True):
        taken = fast.decode(row)
        total = sum(prices[tuple(taken[name] for name in names)] for _, names, prices in layers)
        assert total == pytest.approx(expected, rel=1e-12)


def test_codes_and_architectures_are_the_same_thing(build):
    fast = VectorisedCost(SPACE, build, Neighbourly(), CostTable())
    codes = fast.sample(50, seed=3)
    assert codes.shape == (50, 4) and (codes == fast.sample(50, seed=3)).all()
    decoded = [Architecture(fast.decode(row)) for row in codes]
    assert (fast.encode(decoded) == codes).all()
    assert fast.encode([]).shape == (0, 4) and fast.cost(fast.encode([])).shape == (0,)


def test_bad_input_is_refused(build):
    target, table = Neighbourly(), CostTable()
    with pytest.raises(BadInput, match="add up"):
        VectorisedCost(SPACE, build, target, table, "peak_sram_bytes")
    with pytest.raises(BadInput, match="no choice"):
        VectorisedCost((), build, target, table)
    fast = VectorisedCost(SPACE, build, target, table)
    with pytest.raises(BadInput, match="not an architecture"):
        fast.encode([{"depth": 7, "a": 8, "b": 8, "c": 16}])
    for wrong in (
        np.zeros((2, 3), int),
        np.zeros((2, 4)),
        np.full((1, 4), 9),
        -np.ones((1, 4), int),
    ):
        with pytest.raises(BadInput):
            fast.cost(wrong)


def test_large_products_are_searched_not_stored():
    sizes = [64] * 8
    slot = Slot("layer", sizes)
    for choice in range(6):
        slot.depend(choice)
    assert DENSE < 64**6
    rows = [(i, 63 - i, 5, i, 7, 63, 0, i) for i in range(40)]
    for row in rows:
        assert slot.observe(row, f"unit {row[0]}") is None
    slot.price(lambda key: None if key == "unit 3" else float(key.split()[1]))
    columns = np.array([*rows, (9,) * 8]).T
    prices = slot.prices(slot.places(columns))
    expected = [float(i) for i in range(40)] + [np.nan]
    expected[3] = np.nan
    np.testing.assert_equal(prices, expected)
    empty = Slot("layer", sizes)
    for choice in range(6):
        empty.depend(choice)
    empty.price(lambda key: 1.0)
    assert np.isnan(empty.prices(empty.places(columns))).all()
    wide = Slot("layer", [1 << 16] * 4)
    for choice in range(3):
        wide.depend(choice)
    with pytest.raises(BadInput, match="too many"):
        wide.depend(3)


def test_orders_are_merged():
    order = merged_order([["a", "c", "d"], ["a", "b", "c"], ["x", "d"]])
    assert order["a"] < order["b"] < order["c"] < order["d"] and order["x"] < order["d"]
    assert set(merged_order([["a", "b"], ["b", "a"]])) == {"a", "b"}
