import os
import signal
import subprocess
import sys
import time

import pytest

from chipfit.errors import ChipfitError, UnknownName
from chipfit.workers import WorkerPool


def _add(setup, item):
    return setup + item, os.getpid()


def _fail(setup, item):
    raise UnknownName("colour", "gren", ["green", "blue"])


def _die(setup, item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_carry_their_index_and_do_not_depend_on_the_number_of_workers():
    for count in (1, 3):
        with WorkerPool(count, 10) as pool:
            results = {i: value for i, (value, _) in pool.map(_add, list(range(7)))}
        assert results == {i: 10 + i for i in range(7)}


def test_workers_stay_alive_between_calls():
    with WorkerPool(1, 0) as pool:
        first = [pid for _, (_, pid) in pool.map(_add, [1])]
        second = [pid for _, (_, pid) in pool.map(_add, [1])]
    assert first == second != [os.getpid()]


def test_errors_come_home_whole():
    with WorkerPool(1) as pool, pytest.raises(UnknownName) as caught:
        list(pool.map(_fail, [0]))
    assert caught.value.hint == "did you mean green?"


def test_a_dead_worker_is_reported_and_the_pool_can_be_used_again():
    with WorkerPool(2, 1) as pool:
        with pytest.raises(ChipfitError, match="died"):
            list(pool.map(_die, [0]))
        assert dict(pool.map(_add, [1]))[0][0] == 2


def test_workers_die_with_their_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from chipfit.workers import WorkerPool\n"
        "def nap(setup, item):\n"
        "    import os, time\n"
        "    print(os.getpid(), flush=True, file=open(item, 'w'))\n"
        "    time.sleep(60)\n"
        f"list(WorkerPool(1).map(nap, [{str(tmp_path / 'pid')!r}]))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")
