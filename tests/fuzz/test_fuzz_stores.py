# SPDX-License-Identifier: Apache-2.0
"""Damaged cost tables, CSVs and run directories: an error of chipfit each, or the content."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chipfit.cost import Cost
from chipfit.cost.table import CostTable
from chipfit.cost.table_csv import export_csv, import_csv
from chipfit.errors import ChipfitError, StaleCostTable, StorageError
from chipfit.files import read_state, write_state
from chipfit.report.read import read_run
from chipfit.rewrite.edits import Edit
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.targets.cortex_m_board import fit_board
from chipfit.targets.cortex_m_figures import CORES
from chipfit.targets.measurements import Measurements
from chipfit.train.checkpoint import read_checkpoint, write_checkpoint

sys.path.append(str(Path(__file__).parent))

from mutations import damaged, examples, survives

ROWS = [("unit-a", Cost({"latency_ms": 1.5, "cycles": 7}, "compiled"), "a conv"),
        ("unit-b", Cost({"latency_ms": 2.5}, "measured", {"latency_ms": 0.1}), "a pool")]  # fmt: skip


def filled_table(path):
    with CostTable(path) as table:
        table.put_many("device 1.0", ROWS)
        table.set_facts("device 1.0", {"reference_ms": 2.0})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return the bytes of a good file of every kind."""
    place = tmp_path_factory.mktemp("good")
    table = filled_table(place / "t.sqlite")
    with CostTable(table) as opened:
        export_csv(opened, place / "t.csv")
    operators = Path(__file__).parents[2] / "examples" / "own_device.csv"
    write_state(place / "w.safetensors", {"a": torch.ones(3), "b": torch.zeros(2, 2)})
    write_checkpoint(place / "c.safetensors", {"a": torch.ones(3)}, {"epoch": 1})
    (place / "operators.csv").write_text("\n".join(operators.read_text().splitlines()[:6]) + "\n")
    (place / "board.csv").write_text(
        "network,latency_ms,input\n" + "".join(f"net{i}.tflite,{i + 1}.5,\n" for i in range(3))
    )
    return {path.name: path.read_bytes() for path in place.iterdir()}


def read_table(path):
    with CostTable(path) as table:
        table.get_many("device 1.0", ["unit-a", "unit-b"])
        list(table.rows())
        table.facts("device 1.0")
        table.put_many("device 1.0", [("unit-c", Cost({"cycles": 1}, "compiled"), "new")])


def import_table(path):
    with CostTable() as table:
        import_csv(table, path)


READERS = {
    "t.sqlite": (read_table, 80),
    "t.csv": (import_table, 120),
    "operators.csv": (Measurements, 120),
    "board.csv": (
        lambda path: fit_board(
            path, {k: c.cycles for k, c in CORES["cortex-m4"].constants.items()}, 1e8
        ),
        80,
    ),
    "w.safetensors": (read_state, 120),
    "c.safetensors": (read_checkpoint, 120),
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, sources, folder):
    read, count = READERS[name]
    read(_written(folder / f"whole-{name}", sources[name])) if name != "board.csv" else None

    @examples(count)
    @given(data=damaged(sources[name]))
    def fuzz(data):
        for suffix in ("-wal", "-shm", "-journal"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
        path = _written(folder / name, data)
        survives(lambda: read(path))

    fuzz()


def _written(path, data):
    path.write_bytes(data)
    return path


@examples(40)
@given(data=st.binary(max_size=400))
def test_left_over_logs_of_sqlite(sources, folder, data):
    path = _written(folder / "wal.sqlite", sources["t.sqlite"])
    _written(folder / "wal.sqlite-wal", data)
    _written(folder / "wal.sqlite-shm", data)
    survives(lambda: read_table(path))


@pytest.mark.parametrize("cost", [
    "{", "null", "7", "[]", "{}", '{"values": 3, "provenance": "compiled"}',
    '{"values": {"cycles": "many"}, "provenance": "compiled"}',
    '{"values": {"speed": 1}, "provenance": "compiled"}',
    '{"values": {"cycles": 1}, "provenance": "guessed"}',
])  # fmt: skip
def test_rows_with_broken_costs(cost, folder, tmp_path):
    path = filled_table(tmp_path / "t.sqlite")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE costs SET cost = ? WHERE unit = 'unit-a'", (cost,))
    connection.commit()
    connection.close()
    with pytest.raises(StaleCostTable, match="unit-a"), CostTable(path) as table:
        table.get_many("device 1.0", ["unit-a"])
    with pytest.raises(StaleCostTable, match="unit-a"), CostTable(path) as table:
        list(table.rows())


def test_tables_of_another_schema(tmp_path):
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(StaleCostTable, match="another format"):
        CostTable(path)
    path = filled_table(tmp_path / "t.sqlite")
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE costs RENAME TO prices")
    connection.commit()
    connection.close()
    with pytest.raises(ChipfitError):
        read_table(path)


def good_run(place):
    run = Run.open(place, {"network": "net", "seed": 0, "budget": {"limits": {"latency_ms": 1}}})
    write_state(place / "candidates" / "original" / "weights.safetensors", {"a": torch.ones(2)})
    run.save(Candidate("original", metrics={"val_accuracy": 0.5}, cost={"latency_ms": 2.0},
                       provenance="compiled",
                       edits=(Edit.from_json(_edit()),)))  # fmt: skip
    run.record("step", "k", value=1)
    run.close()
    return place


def _edit():
    return {"rewrite": "slice", "module": "0", "side": "out", "size": 3, "keep": [0, 2]}


def read_whole_run(place):
    run = Run.read(place)
    run.candidates()
    list(run.journal)


PARTS = ("config.json", "journal.jsonl", "environment.json", "candidates/original/candidate.json",
         "candidates/original/edits.json")  # fmt: skip


@pytest.mark.parametrize("reader", [read_whole_run, read_run], ids=["resume", "report"])
@pytest.mark.parametrize("part", PARTS)
def test_damaged_runs(part, reader, tmp_path):
    place = good_run(tmp_path / "run")
    whole = (place / part).read_bytes()
    reader(place)

    @examples(60)
    @given(data=damaged(whole))
    def fuzz(data):
        (place / part).write_bytes(data)
        survives(lambda: reader(place))

    fuzz()


@pytest.mark.parametrize("text", ["7", "null", "[]", '"x"', "{", "\xff", "[" * 100_000])
@pytest.mark.parametrize("part", PARTS)
def test_json_of_another_kind(part, text, tmp_path):
    place = good_run(tmp_path / "run")
    (place / part).write_text(text, encoding="latin-1")
    survives(lambda: read_whole_run(place))
    survives(lambda: read_run(place))


def test_a_journal_cut_in_the_middle_of_a_line_is_read_up_to_it(tmp_path):
    place = good_run(tmp_path / "run")
    path = place / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert Run.read(place).recall("k") is None
    path.write_bytes(whole.replace(b'"event":"started"', b'"event":started"'))
    with pytest.raises(StorageError, match="line 1"):
        Run.read(place)


def test_candidates_are_restored(tmp_path):
    [original] = Run.read(good_run(tmp_path / "run")).candidates()
    assert json.loads(json.dumps(original.to_json()))["cost"] == {"latency_ms": 2.0}
