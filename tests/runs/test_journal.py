import errno
import json

import pytest
import torch

from chipfit.errors import BadInput, RunMismatch, StorageError
from chipfit.files import read_state, write_json, write_state
from chipfit.rewrite import Edit
from chipfit.runs import Candidate, Journal, Run
from chipfit.runs import journal as journal_module


def test_events_survive_and_are_recalled_by_key(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append("a", key="x", value=1)
    journal.append("a", key="x", value=2)
    again = Journal(tmp_path / "j.jsonl")
    assert again.recall("x")["value"] == 2
    assert again.recall("y") is None
    assert len(list(again)) == 2


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_half_written_last_line_is_dropped(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    Journal(path).append("a", key="first")
    whole = path.stat().st_size
    Journal(path).append("b", key="second", value=1.5)
    with path.open("r+b") as file:
        file.truncate(min(whole + cut, path.stat().st_size - 1))
    journal = Journal(path)
    assert journal.recall("second") is None
    journal.append("c", key="third")
    assert [e["key"] for e in Journal(path)] == ["first", "third"]


def test_damage_before_the_last_line_is_an_error(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text('{"event":"a"}\n{"eve\n{"event":"b"}\n')
    with pytest.raises(StorageError, match="line 2"):
        Journal(path)


def test_a_full_disk_leaves_whole_lines_only(tmp_path, monkeypatch):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append("a", key="x")
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal_module.os, "fsync", full)
    with pytest.raises(StorageError, match="free some space"):
        journal.append("b", key="y")
    assert path.read_bytes() == before


def test_a_run_of_other_settings_is_refused_by_name(tmp_path):
    Run.open(tmp_path / "r", {"seed": 0, "target": "a"}).close()
    with pytest.raises(RunMismatch, match="target: 'a' there, 'b' now"):
        Run.open(tmp_path / "r", {"seed": 0, "target": "b"})
    Run.open(tmp_path / "r", {"seed": 0, "target": "a"}).close()


def test_two_processes_cannot_share_a_run(tmp_path):
    first = Run.open(tmp_path / "r", {})
    with pytest.raises(StorageError, match="another process"):
        Run.open(tmp_path / "r", {})
    first.close()
    Run.open(tmp_path / "r", {}).close()


def test_candidates_come_back_as_they_were(tmp_path):
    run = Run.open(tmp_path / "r", {})
    original = Candidate("original", metrics={"val_accuracy": 0.9})
    edits = (Edit("conv", "out", 4, (0, 2)),)
    narrow = Candidate("netadapt-01", edits, step=1, parent="original", architecture={"conv": 2})
    run.save(narrow)
    run.save(original)
    assert run.candidates() == [original, narrow]
    with pytest.raises(BadInput, match="netadapt-1"):
        run.candidate("netadapt-1")
    run.close()


def test_reading_something_else_is_refused(tmp_path):
    with pytest.raises(BadInput, match="not a run directory"):
        Run.read(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_states_round_trip_and_damage_is_reported(tmp_path):
    shared = torch.arange(6.0)
    state = {"a": shared[:3], "b": shared[3:], "n": torch.tensor(3)}
    write_state(tmp_path / "s.safetensors", state)
    back = read_state(tmp_path / "s.safetensors")
    assert all(torch.equal(state[k], back[k]) for k in state)
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match="cannot read"):
        read_state(tmp_path / "bad.safetensors")
