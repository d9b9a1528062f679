# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from chipfit.cost import Cost
from chipfit.cost.table import CostTable
from chipfit.cost.table_csv import export_csv, import_csv
from chipfit.errors import BadInput, StaleCostTable, StorageError


def price(n):
    return Cost({"latency_ms": 0.1 * n, "cycles": n}, "compiled", {"latency_ms": 0.01})


def test_rows_survive_and_are_exact(tmp_path):
    path = tmp_path / "deep" / "table.sqlite"
    with CostTable(path) as table:
        table.put_many("t 1", [("a", price(1), "op a"), ("b", price(3), "op b")])
        assert table.get_many("t 1", ["b", "none", "a"]) == {"b": price(3), "a": price(1)}
        assert table.get_many("t 2", ["a"]) == {}
    with CostTable(path) as again:
        assert again.get_many("t 1", ["a", "b"]) == {"a": price(1), "b": price(3)}
        assert [(row[0], row[1], row[3]) for row in again.rows()] == [
            ("t 1", "a", "op a"),
            ("t 1", "b", "op b"),
        ]


def test_the_first_writer_wins(tmp_path):
    one, two = CostTable(tmp_path / "t"), CostTable(tmp_path / "t")
    one.put_many("f", [("a", price(1), "")])
    two.put_many("f", [("a", price(2), "")])
    assert two.get_many("f", ["a"])["a"] == one.get_many("f", ["a"])["a"] == price(1)
    assert one.set_facts("f", {"reference_ms": 1.0}) == {"reference_ms": 1.0}
    assert two.set_facts("f", {"reference_ms": 2.0}) == {"reference_ms": 1.0}
    assert two.set_facts("f", {"reference_ms": 3.0}, replace=True) == {"reference_ms": 3.0}


def test_a_row_of_another_process_is_seen(tmp_path):
    one, two = CostTable(tmp_path / "t"), CostTable(tmp_path / "t")
    assert two.get_many("f", ["a"]) == {}
    one.put_many("f", [("a", price(1), "")])
    assert two.get_many("f", ["a"]) == {"a": price(1)}


def write_rows(path, worker, count):
    table = CostTable(path)
    for i in range(count):
        table.put_many("f", [(f"{worker}-{i}", price(i), ""), (f"both-{i}", price(i), "")])


def test_two_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=write_rows, args=(tmp_path / "t", w, 40)) for w in (0, 1)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    assert len(list(CostTable(tmp_path / "t").rows())) == 120


def test_a_connection_survives_a_fork(tmp_path):
    table = CostTable(tmp_path / "t")
    table.put_many("f", [("parent", price(1), "")])
    child = os.fork()
    if child == 0:
        table.put_many("f", [("child", price(2), "")])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert set(table.get_many("f", ["parent", "child"])) == {"parent", "child"}


def test_a_killed_writer_loses_nothing_that_was_stored(tmp_path):
    path = tmp_path / "t"
    code = (
        "import sys; from chipfit.cost import Cost; from chipfit.cost.table import CostTable\n"
        "table = CostTable(sys.argv[1])\n"
        "for i in range(10**6):\n"
        "    table.put_many('f', [(str(i), Cost({'cycles': i}, 'compiled'), '')])\n"
        "    print(i, flush=True)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    seen = [int(job.stdout.readline()) for _ in range(30)]
    job.send_signal(signal.SIGKILL)
    seen += [int(line) for line in job.stdout.read().split()]
    job.wait()
    stored = CostTable(path).get_many("f", map(str, seen))
    assert [stored[str(i)]["cycles"] for i in seen] == seen


def test_another_schema_or_format_is_refused(tmp_path):
    path = tmp_path / "t"
    CostTable(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(StaleCostTable, match="version 99"):
        CostTable(path)
    other = tmp_path / "other"
    with sqlite3.connect(other) as raw:
        raw.execute("CREATE TABLE mine (x)")
    with pytest.raises(StaleCostTable, match="another format"):
        CostTable(other)
    text = tmp_path / "text"
    text.write_text("not a database at all, but long enough to have a header" * 20)
    with pytest.raises(StaleCostTable, match="not a cost table"):
        CostTable(text)


def test_a_full_disk_is_a_storage_error_and_keeps_earlier_rows(tmp_path):
    table = CostTable(tmp_path / "t")
    table.put_many("f", [("kept", price(1), "")])
    pages = table._connection.execute("PRAGMA page_count").fetchone()[0]
    table._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageError, match="full"):
        table.put_many("f", [(f"row-{i}" * 50, price(i), "x" * 500) for i in range(500)])
    table._connection.execute("PRAGMA max_page_count = 100000")
    assert table.get_many("f", ["kept"]) == {"kept": price(1)}
    table.put_many("f", [("later", price(2), "")])
    assert len(list(CostTable(tmp_path / "t").rows())) == 2


def test_unusable_places_are_storage_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        CostTable(tmp_path / "file" / "table")
    with pytest.raises(StorageError):
        CostTable(tmp_path)
    table = CostTable(tmp_path / "t")
    table.close()
    with pytest.raises(StorageError):
        table.get_many("f", ["a"])


def test_csv_round_trip_is_exact(tmp_path):
    source = CostTable()
    odd = Cost({"latency_ms": 0.1 + 0.2, "cycles": 7, "macs": 10**12}, "measured")
    source.put_many("f", [("a", odd, 'a, "quoted" op'), ("b", price(3), "")])
    source.put_many("g", [("a", price(2), "")])
    source.set_facts("f", {"reference_ms": 1 / 3})
    assert export_csv(source, tmp_path / "all.csv") == 3
    assert export_csv(source, tmp_path / "f.csv", "f") == 2
    target = CostTable()
    assert import_csv(target, tmp_path / "all.csv") == 3
    assert list(target.rows()) == list(source.rows())
    assert target.facts("f") == {"reference_ms": 1 / 3}
    assert type(target.get_many("f", ["a"])["a"]["cycles"]) is int


def test_csv_of_another_currency_or_kind_is_refused(tmp_path):
    source, target = CostTable(), CostTable()
    source.put_many("f", [("a", price(1), "")])
    source.set_facts("f", {"reference_ms": 1.0})
    target.set_facts("f", {"reference_ms": 2.0})
    export_csv(source, tmp_path / "t.csv")
    with pytest.raises(BadInput, match="currencies"):
        import_csv(target, tmp_path / "t.csv")
    assert list(target.rows()) == []
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="not an exported"):
        import_csv(target, tmp_path / "bad.csv")
    with pytest.raises(BadInput, match="cannot read"):
        import_csv(target, tmp_path / "absent.csv")


def test_asking_again_touches_no_file(tmp_path):
    table = CostTable(tmp_path / "t")
    keys = [f"unit-{i}" for i in range(60)]
    table.put_many("f", [(key, price(1), "") for key in keys])
    table.close()
    assert len(table.get_many("f", keys)) == 60
