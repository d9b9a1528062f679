# SPDX-License-Identifier: Apache-2.0
"""Reading run directories: whole, unfinished, damaged, and wrong."""

import json
import shutil

import pytest

from chipfit.errors import BadInput, StorageError
from chipfit.report import read_run


def edit(run, name, change):
    path = run / "candidates" / name / "candidate.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_reads_a_finished_run(run_dir):
    run = read_run(run_dir)
    assert [m.id for m in run.members] == ["original"] + [f"netadapt-{i:02d}" for i in range(1, 8)]
    assert run.original is run.members[0]
    assert run.budget == {"latency_ms": run.config["budget"]["latency_ms"]}
    assert run.journal.finished
    assert run.journal.unreadable_lines == 0
    assert len(run.journal.proposals) == 7 * 12
    assert [s.step for s in run.journal.steps] == list(range(1, 8))
    assert [s.name for s in run.journal.stages][:2] == ["data", "train"]
    member = run.members[2]
    change = member.changes[1]
    assert (change.group, change.before, change.after) == ("features.3.conv.0.0", 144, 88)
    assert change.metrics_before == {"val_accuracy": 0.9112}
    assert change.metrics_after == {"val_accuracy": 0.9096}
    saved = run.members[1].cost["latency_ms"] - member.cost["latency_ms"]
    assert change.saved["latency_ms"] == pytest.approx(saved)
    assert member.values["cpu_latency_ms"] == member.cpu_latency_ms
    file = next(f for f in member.files if f.format == "tflite")
    assert file.size_bytes == (run_dir / file.path).stat().st_size


def test_only_id_cost_and_metrics_are_needed(run_dir):
    def strip(data):
        keep = {"id", "cost", "metrics"}
        for key in set(data) - keep:
            del data[key]
        data["metrics"] = {"val_accuracy": 0.5}

    edit(run_dir, "netadapt-01", strip)
    member = next(m for m in read_run(run_dir).members if m.id == "netadapt-01")
    assert member.metrics == {"val_accuracy": 0.5}
    assert member.cpu_latency_ms is None
    assert member.prediction_error("latency_ms") is None
    assert (member.layers, member.changes, member.files, member.provenance) == ((), (), (), "")


def test_unknown_figures_are_absent_not_made_up(run_dir):
    def blank(data):
        data["cost"] |= {"latency_ms": None, "cycles": float("nan")}

    edit(run_dir, "netadapt-02", blank)
    run = read_run(run_dir)
    member = next(m for m in run.members if m.id == "netadapt-02")
    assert "latency_ms" not in member.cost
    assert "cycles" not in member.cost
    assert run.meets_budget(member) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("cost"), "no 'cost'"),
        (lambda d: d.update(metrics=[]), "no 'metrics'"),
        (lambda d: d["cost"].update(macs="many"), r"cost\.macs must be a number"),
        (lambda d: d.update(layers={}), "layers must be a list"),
        (lambda d: d.update(id="original"), "two candidates"),
    ],
)
def test_a_wrong_candidate_is_named(run_dir, change, message):
    edit(run_dir, "netadapt-03", change)
    with pytest.raises(BadInput, match=message):
        read_run(run_dir)


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no config\.json"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text('{"network": ')
    with pytest.raises(BadInput, match="not JSON"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BadInput, match="JSON object"):
        read_run(tmp_path)


def test_an_empty_run_and_a_candidate_being_written(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "candidates" / "original").mkdir(parents=True)
    run = read_run(tmp_path)
    assert run.members == ()
    assert run.original is None
    assert not run.journal.finished


def test_files_outside_the_run_are_not_linked(run_dir):
    def escape(data):
        data["files"] = {
            "a": "/etc/passwd",
            "b": "candidates/../../secret",
            "c": "javascript:alert(1)",
            "d": "",
            "e": ".",
            "onnx": "candidates/netadapt-04/gone.onnx",
        }

    edit(run_dir, "netadapt-04", escape)
    member = next(m for m in read_run(run_dir).members if m.id == "netadapt-04")
    assert [(f.format, f.size_bytes) for f in member.files] == [("onnx", None)]


def test_a_half_written_last_line_is_normal(run_dir):
    path = run_dir / "journal.jsonl"
    whole = read_run(run_dir).journal
    path.write_bytes(path.read_bytes() + b'{"event": "stage", "name": "re')
    assert read_run(run_dir).journal == whole


def test_every_cut_of_the_journal_can_be_read(run_dir):
    path = run_dir / "journal.jsonl"
    content = path.read_bytes()
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        journal = read_run(run_dir).journal
        assert journal.unreadable_lines == 0
        assert len(journal.proposals) + len(journal.steps) <= content[:size].count(b"\n") + 1


def test_a_damaged_line_in_the_middle_is_counted(run_dir):
    path = run_dir / "journal.jsonl"
    lines = path.read_text().splitlines()
    lines[5] = lines[5][:20]
    lines[9] = "3"
    path.write_text("\n".join(lines) + "\n")
    journal = read_run(run_dir).journal
    assert journal.unreadable_lines == 2
    assert journal.finished


def test_a_continued_run_counts_once(tmp_path):
    events = [
        {"event": "stage", "name": "search", "seconds": 10.0, "peak_rss_bytes": 5},
        {"event": "proposal", "step": 1, "group": "a", "width": 8, "val_accuracy": 0.5},
        {"event": "proposal", "step": 1, "group": "a", "width": 8, "val_accuracy": 0.6},
        {"event": "step", "step": 1, "group": "a", "width": 8, "val_accuracy": 0.6},
        {"event": "stage", "name": "search", "seconds": 2.5, "peak_rss_bytes": 3},
        {"event": "stage", "name": "export", "seconds": None},
        {"event": "something new", "step": "x"},
    ]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, events)))
    journal = read_run(tmp_path).journal
    assert [p.metrics for p in journal.proposals] == [{"val_accuracy": 0.6}]
    search, export = journal.stages
    assert (search.seconds, search.peak_rss_bytes, search.times) == (12.5, 5, 2)
    assert (export.seconds, export.peak_rss_bytes) == (None, None)


def test_an_unreadable_journal_is_a_storage_error(run_dir):
    (run_dir / "journal.jsonl").unlink()
    (run_dir / "journal.jsonl").mkdir()
    with pytest.raises(StorageError, match="journal"):
        read_run(run_dir)


def test_a_budget_in_fractions_is_made_absolute(make_run):
    run = make_run(budget={"limits": {"macs": 5e6}, "fractions": {"latency_ms": 0.5}})
    data = read_run(run)
    assert data.budget == {"macs": 5e6, "latency_ms": 0.5 * data.original.cost["latency_ms"]}
    with (run / "journal.jsonl").open("a") as file:
        file.write('{"event": "budget", "cost": {}}\n')
        file.write('{"event": "budget", "limits": {"latency_ms": 0.3}}\n')
    assert read_run(run).budget == {"latency_ms": 0.3}
    shutil.rmtree(run / "candidates" / "original")
    (run / "journal.jsonl").unlink()
    assert read_run(run).budget == {"macs": 5e6}
