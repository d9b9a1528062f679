import itertools

import pytest

from benchmarks.nas_bench_201_cycles import CycleStore, live, workload_of
from benchmarks.nas_bench_201_runs import (
    Settings,
    Table,
    makers,
    regrets,
    run,
    shares,
    towards_front,
)
from chipfit.space.nas_bench_201 import EDGES, OPERATIONS, cell_space, cell_text
from chipfit.targets import create

SIZES = (3, 3, 3)
ROWS = list(itertools.product(range(3), repeat=3))
TABLE = Table(
    SIZES,
    {row: 50.0 + 10 * row[0] + 3 * row[1] - row[2] for row in ROWS},
    {row: 1.0 + row[0] * 2 + row[1] for row in ROWS},
)


def _cell(*operations):
    return dict(zip(EDGES, operations, strict=True))


def test_edges_that_do_nothing_are_left_out():
    one, zero = "nor_conv_1x1", "none"
    # 0-1, 0-2, 1-2, 0-3, 1-3, 2-3
    dead_end = _cell(one, one, one, one, zero, zero)
    assert live(dead_end) == cell_text(_cell(zero, zero, zero, one, zero, zero))
    no_source = _cell(zero, one, one, zero, one, one)
    assert live(no_source) == cell_text(_cell(zero, one, zero, zero, zero, one))
    chain = _cell(one, zero, one, zero, zero, one)
    assert live(chain) == cell_text(chain)
    for cell in (dead_end, no_source):
        assert workload_of(cell_text(cell)).key == workload_of(live(cell)).key


def test_number_of_different_networks():
    assert len({live(cell) for cell in cell_space().architectures()}) == 9445
    assert len(OPERATIONS) ** len(EDGES) == 15625


def test_store_continues_after_a_torn_line(tmp_path):
    target = create("ethos-u55-128")
    one, zero = "nor_conv_1x1", "none"
    cells = [_cell(zero, zero, zero, "skip_connect", zero, zero),
             _cell(one, one, one, "skip_connect", zero, zero)]  # fmt: skip
    first = CycleStore(tmp_path, target)
    figures = first.of(cells, 1, lambda line: None)
    assert figures[0] == figures[1] and figures[0]["cycles"] > 0  # the same network
    text = first.path.read_text()
    assert text.count('"cell"') == 1
    first.path.write_text(text + '\n{"cell": "|none~0|+|')
    again = CycleStore(tmp_path, target)
    assert again._known == first._known
    again._keep("another", {"cycles": 1.0})
    assert CycleStore(tmp_path, target)._known["another"] == {"cycles": 1.0}


def test_regret_and_share_of_the_front():
    order = sorted(ROWS, key=lambda row: TABLE.accuracy[row])
    assert regrets(TABLE, order, [1, 27, 99]) == [28.0, 0.0, 0.0]
    assert shares(TABLE, order, [27], (40.0, 20.0)) == [1.0]
    (few,) = shares(TABLE, [(0, 0, 0)], [1], (40.0, 20.0))
    assert few == pytest.approx(10 * 19 / _whole())


def _whole():
    # By cost 1 to 7, the best accuracy: 50 53 60 63 70 73 76 (of equal costs the wider first one).
    best = {}
    for row in ROWS:
        best[TABLE.cost[row]] = max(best.get(TABLE.cost[row], 0.0), TABLE.accuracy[row])
    volume, top = 0.0, 40.0
    for cost in sorted(best):
        if best[cost] > top:
            volume += (best[cost] - top) * (20.0 - cost)
            top = best[cost]
    return volume


@pytest.mark.parametrize("name", list(makers(Settings())))
def test_every_strategy_runs_on_the_table(name):
    make = makers(Settings((4, 2), 4, 0.1))[name]
    rows = run(make(SIZES, ("max",), 0), lambda row: (TABLE.accuracy[row],), 99)
    assert len(rows) == len(set(rows)) == 27
    path = towards_front(name, make, TABLE, 20, 0)
    assert len(path) == 20
    low, high = shares(TABLE, path, [3, 20], (40.0, 20.0))
    assert 0 < low <= high <= 1
