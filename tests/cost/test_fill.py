# SPDX-License-Identifier: Apache-2.0
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chipfit.cost.fill import describe
from chipfit.cost.table import CostTable
from chipfit.targets import create
from chipfit.workers import WorkerPool

pytest.importorskip("ethosu")

KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from conftest import build_bottlenecks
from chipfit.cost.table import CostTable
from chipfit.targets import create
target = create("ethos-u55-64")
units = target.units(build_bottlenecks(range(8, 80, 8)))
CostTable(sys.argv[1]).fill(target, units, on_progress=lambda done, all: print(done, flush=True))
"""


@pytest.fixture
def units(bottlenecks):
    return create("ethos-u55-64").units(bottlenecks(range(8, 80, 8)))


def test_results_do_not_depend_on_workers(units):
    target = create("ethos-u55-64")
    assert len({unit.key for unit in units}) >= 24  # enough for processes to be started
    seen = []
    alone = CostTable().fill(target, units)
    with WorkerPool(2) as pool:
        together = CostTable().fill(target, units, pool, lambda done, all: seen.append((done, all)))
    assert alone == together
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == len({unit.key for unit in units})


def test_a_killed_fill_continues(tmp_path, units):
    path = tmp_path / "table"
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    done = int(job.stdout.readline())
    job.send_signal(signal.SIGKILL)
    job.wait()
    target, table = create("ethos-u55-64"), CostTable(path)
    kept = table.get_many(target.fingerprint, [unit.key for unit in units])
    assert done <= len(kept) < len({unit.key for unit in units})
    left = []
    costs = table.fill(target, units, on_progress=lambda done, all: left.append(all))
    assert left[0] == len({unit.key for unit in units}) - len(kept)
    assert costs == CostTable().fill(target, units)


def test_a_filled_table_prices_nothing(units):
    target, table = create("ethos-u55-64"), CostTable()
    first = table.fill(target, units[:3])
    asked = []
    assert table.fill(target, units[:3], on_progress=lambda *a: asked.append(a)) == first
    assert asked == []


def test_rows_say_what_they_are(units):
    text = describe(units[1])
    assert text.startswith("conv2d 1x8x8x8>1x8x8x8 kernel=3x3 stride=1x1 groups=8 relu")
    assert "between" in text
