# SPDX-License-Identifier: Apache-2.0
"""Event files, read back with TensorBoard's own reader."""

import sys

import numpy as np
import pytest

from chipfit.errors import BadInput, MissingBackend
from chipfit.report import follow_tensorboard, read_run, write_tensorboard
from chipfit.report.tensorboard import scalars
from chipfit.runs.run import Run

pytest.importorskip("tensorboard")


def read_back(folder):
    """Return by tag all (step, value, wall time) of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(e.step, e.value, e.wall_time) for e in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def expected(run):
    """Return what must be there: single precision values at the steps of the journal."""
    journal = read_run(run).journal
    (search,) = journal.searches
    found = {}
    for step in search.steps:
        for tag, value in scalars(step):
            at = journal.started_s + step.seconds
            found.setdefault(tag, []).append((step.step, float(np.float32(value)), at))
    return found


def test_what_is_read_back_is_what_was_recorded(search_run, tmp_path):
    (file,) = write_tensorboard(search_run, tmp_path / "events")
    assert file.parent == tmp_path / "events" / "fbnet"
    found = read_back(file.parent)
    assert found == expected(search_run)
    recorded = [e for e in Run.read(search_run).journal if e["event"] == "search"]
    for tag, read in {
        "loss/training": lambda e: e["loss"],
        "loss/validation": lambda e: e["val_loss"],
        "metric/val_accuracy": lambda e: e["val_accuracy"],
        "cost/latency_ms expected": lambda e: e["expected"]["latency_ms"],
        "cost/latency_ms budget": lambda e: e["budget"]["latency_ms"],
        "search/entropy": lambda e: e["entropy"],
        "search/temperature": lambda e: e["temperature"],
        "search/skip_share": lambda e: e["skip_share"],
        "search/collapsing": lambda e: 0.0,
        "probability blocks.2/skip": lambda e: e["probabilities"]["blocks.2"][3],
    }.items():
        assert [(s, v) for s, v, _ in found[tag]] == [
            (e["step"], float(np.float32(read(e)))) for e in recorded
        ]


def test_writing_again_does_not_duplicate_and_spares_other_files(search_run, tmp_path):
    (file,) = write_tensorboard(search_run, tmp_path)
    other = file.parent / "events.out.tfevents.1.host"
    other.write_bytes(b"")
    assert write_tensorboard(search_run, tmp_path) == [file]
    assert sorted(p.name for p in file.parent.iterdir()) == sorted([file.name, other.name])
    assert read_back(file.parent) == expected(search_run)


def test_a_run_that_goes_on_is_followed(make_search_run, search_event, tmp_path):
    folder = make_search_run(last=100, finished=False)
    write_tensorboard(folder, tmp_path / "events")
    seen = []

    def waiting(_):
        seen.append(len(read_back(tmp_path / "events" / "fbnet")["loss/training"]))
        if len(seen) == 1:
            run = Run.read(folder)
            # A continued run repeats step 100 before it goes on.
            for step in (100, 110, 120):
                run.record("search", f"fbnet/search/{step}", **search_event(step))
        elif len(seen) == 2:
            Run.read(folder).record("finished", "finished")

    assert follow_tensorboard(folder, tmp_path / "events", waiting=waiting) == [
        tmp_path / "events" / "fbnet"
    ]
    assert seen == [10, 12]
    assert len(list((tmp_path / "events" / "fbnet").iterdir())) == 1
    found = read_back(tmp_path / "events" / "fbnet")
    steps = [step for step, _, _ in found["loss/training"]]
    assert steps == list(range(10, 121, 10))
    assert {tag: rows for tag, rows in found.items() if tag != "search/collapsing"} == {
        tag: rows for tag, rows in expected(folder).items() if tag != "search/collapsing"
    }


def test_stopping_to_follow_keeps_what_was_written(make_search_run, tmp_path):
    folder = make_search_run(last=50, finished=False)

    def waiting(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_tensorboard(folder, tmp_path / "events", waiting=waiting)
    assert read_back(tmp_path / "events" / "fbnet") == expected(folder)


def test_names_of_searches_stay_inside_the_folder(make_search_run, tmp_path):
    folder = make_search_run(finished=False)
    run = Run.read(folder)
    for name in ("../../out", "..-..-out", "a/b", "/"):
        run.record("search", f"{name}/search/1", method="m", step=1, loss=1.0)
    files = write_tensorboard(folder, tmp_path / "events")
    assert len({f.parent for f in files}) == len(files) == 5
    assert {f.parent.parent for f in files} == {tmp_path / "events"}


def test_without_a_search_or_a_run_there_is_nothing_to_write(run_dir, tmp_path):
    with pytest.raises(BadInput, match="no step of a search"):
        write_tensorboard(run_dir, tmp_path / "events")
    with pytest.raises(BadInput, match=r"no config\.json"):
        follow_tensorboard(tmp_path, tmp_path / "events")
    assert not (tmp_path / "events").exists()


def test_a_missing_package_is_named_with_its_extra(search_run, tmp_path, monkeypatch):
    for name in ("tensorboard", "tensorboard.compat.proto.summary_pb2"):
        monkeypatch.setitem(sys.modules, name, None)
    for write in (write_tensorboard, follow_tensorboard):
        with pytest.raises(MissingBackend, match="tensorboard") as raised:
            write(search_run, tmp_path / "events")
        assert "chipfit[tensorboard]" in raised.value.hint
