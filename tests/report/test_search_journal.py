# SPDX-License-Identifier: Apache-2.0
"""Searches on a supernet as a report reads them: whole, cut, repeated, damaged."""

import csv
import io
import json

import pytest

from chipfit.errors import BadInput
from chipfit.report import read_run, search_facts, search_table
from chipfit.report.search import SKIP_WARNING, thinned
from chipfit.report.search_facts import derived_member, derived_members, search_lines
from chipfit.runs.run import Run
from chipfit.supernet import monitor


def searches_of(folder, events):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "journal.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return read_run(folder).journal.searches


def event(step, **fields):
    return {"event": "search", "method": "m", "step": step, **fields}


def supernet(**choices):
    return {"event": "supernet", "key": "m/supernet", "method": "m", "choices": choices}


def test_everything_that_was_recorded_is_read(search_run):
    recorded = [e for e in Run.read(search_run).journal if e["event"] == "search"]
    (search,) = read_run(search_run).journal.searches
    assert (search.name, search.method, len(search.steps)) == ("fbnet", "fbnet", 20)
    assert list(search.choices) == [f"blocks.{i}" for i in range(4)]
    for step, told in zip(search.steps, recorded, strict=True):
        for key in ("step", "steps", "loss", "val_loss", "expected", "budget", "entropy",
                    "temperature", "skip_share", "collapsing", "seconds"):  # fmt: skip
            assert getattr(step, key) == told[key], key
        assert step.metrics == {"val_accuracy": told["val_accuracy"]}
        for choice, row in told["probabilities"].items():
            assert dict(step.probabilities[choice]) == dict(
                zip(search.choices[choice], row, strict=True)
            )
    assert search.seconds == 50.0
    assert search.collapsing is False


def test_every_cut_of_the_journal_can_be_read(search_run):
    path = search_run / "journal.jsonl"
    content, whole = path.read_bytes(), read_run(search_run).journal.searches[0]
    for size in range(0, len(content), 331):
        path.write_bytes(content[:size])
        journal = read_run(search_run).journal
        assert journal.unreadable_lines == 0
        for search in journal.searches:
            assert search.steps == whole.steps[: len(search.steps)]


def test_a_continued_search_counts_once_and_its_seconds_add_up(tmp_path):
    (search,) = searches_of(
        tmp_path,
        [supernet(a=["x", "y"]), event(10, loss=3.0, seconds=5.0), event(20, loss=2.0, seconds=10),
         event(30, loss=9.0, seconds=15.0), supernet(a=["x", "y"]),
         event(30, loss=1.0, seconds=2.0), event(40, loss=0.5, seconds=7.0)],
    )  # fmt: skip
    assert [(s.step, s.loss) for s in search.steps] == [(10, 3.0), (20, 2.0), (30, 1.0), (40, 0.5)]
    assert search.elapsed_s == (5.0, 10.0, 12.0, 17.0)
    assert search.seconds == 17.0


def test_searches_are_told_apart_by_their_keys(tmp_path):
    events = [
        {"event": "supernet", "key": "padnas/1/supernet", "method": "padnas",
         "choices": {"a": ["x", "y"]}},
        event(10, key="padnas/1/search/10", method="padnas", probabilities={"a": [0.5, 0.5]}),
        {"event": "supernet", "key": "padnas/2/supernet", "method": "padnas",
         "choices": {"a": ["y"]}},
        event(10, key="padnas/2/search/10", method="padnas", probabilities={"a": [1.0]}),
        event(10, method="darts"),
    ]  # fmt: skip
    found = searches_of(tmp_path, events)
    assert [(s.name, s.method) for s in found] == [
        ("padnas/1", "padnas"), ("padnas/2", "padnas"), ("darts", "darts")
    ]  # fmt: skip
    assert found[0].probabilities("a") == {"x": 0.5, "y": 0.5}
    assert found[1].probabilities("a") == {"y": 1.0}
    assert found[2].choices == {}


def test_operations_that_a_supernet_loses_are_pruned(tmp_path):
    (search,) = searches_of(
        tmp_path,
        [supernet(a=["x", "y", "z"], b=["u", "v"]),
         event(1, probabilities={"a": [0.2, 0.3, 0.5], "b": [0.4, 0.6]}),
         supernet(a=["x", "z"], b=["u", "v"]),
         event(2, probabilities={"a": [0.25, 0.75], "b": [0.1, 0.9]})],
    )  # fmt: skip
    assert search.choices["a"] == ("x", "y", "z")
    assert search.steps[0].probabilities["a"] == {"x": 0.2, "y": 0.3, "z": 0.5}
    assert search.steps[1].probabilities["a"] == {"x": 0.25, "y": 0.0, "z": 0.75}
    first, second = search.decisions({"a": "z", "b": "w"})
    assert [(o.name, o.chosen, o.pruned) for o in first.options] == [
        ("x", False, False), ("y", False, True), ("z", True, False)
    ]  # fmt: skip
    assert [(o.name, o.probability) for o in second.options] == [
        ("u", 0.1), ("v", 0.9), ("w", None)
    ]  # fmt: skip


def test_what_is_not_as_it_should_be_is_left_out(tmp_path):
    (search,) = searches_of(
        tmp_path,
        [supernet(a=["x", "y"], b="no list", c=[]),
         event("ten"), event(None), {"event": "search", "method": "m"},
         event(1, loss="low", val_loss=float("nan"), expected=[1], budget={"latency_ms": None},
               collapsing="yes", probabilities={"a": [1.0], "d": [0.5, 0.5]}),
         event(2, probabilities={"a": [0.5, None]}), event(3, probabilities=[0.5])],
    )  # fmt: skip
    assert search.choices == {"a": ("x", "y")}
    assert [s.step for s in search.steps] == [1, 2, 3]
    step = search.steps[0]
    assert (step.loss, step.val_loss, step.collapsing) == (None, None, None)
    assert (step.expected, step.budget, step.probabilities) == ({}, {}, {})
    assert search.pictures == ()


def test_the_member_shown_is_the_best_of_those_that_decide_every_choice(search_run):
    run = read_run(search_run)
    (search,) = run.journal.searches
    assert [m.id for m in derived_members(run, search)] == ["fbnet-1", "fbnet-2"]
    assert derived_member(run, search).id == "fbnet-1"
    path = search_run / "candidates" / "fbnet-1" / "candidate.json"
    data = json.loads(path.read_text())
    del data["architecture"]["blocks.3"]
    path.write_text(json.dumps(data))
    run = read_run(search_run)
    assert derived_member(run, search).id == "fbnet-2"


def test_facts_say_where_the_search_stands(search_run):
    (facts,) = json.loads(json.dumps(search_facts(read_run(search_run)), allow_nan=False))
    last = [e for e in Run.read(search_run).journal if e["event"] == "search"][-1]
    for key in ("step", "steps", "loss", "val_accuracy", "expected", "entropy", "skip_share"):
        assert facts["last"][key] == last[key]
    assert facts["pruned"] == {"blocks.1": ["k3_e1"]}
    assert facts["derived"]["member"] == "fbnet-1"
    assert facts["derived"]["choices"]["blocks.2"] == {
        "operation": "skip", "probability": last["probabilities"]["blocks.2"][3]
    }  # fmt: skip
    assert facts["collapsing"] is False


def test_a_collapse_is_told(make_search_run):
    run = read_run(make_search_run(collapse=True))
    (search,) = run.journal.searches
    assert search.collapsing
    assert any("skips are taking over" in line for line in search_lines(run))
    assert SKIP_WARNING == monitor.SKIP_WARNING


def test_the_lines_name_step_cost_and_budget(search_run):
    (line,) = search_lines(read_run(search_run))
    line = line.replace("\u00a0", " ")
    for part in ("search fbnet: step 200 of 200", "validation accuracy 70.00 %",
                 "latency, expected 0.5900 ms", "latency, budget 0.6000 ms",
                 "MACs, expected 3.100 M", "temperature 1.000"):  # fmt: skip
        assert part in line, line


def test_the_steps_as_csv_are_exact(search_run):
    rows = list(csv.DictReader(io.StringIO(search_table(search_run, "csv"))))
    recorded = [e for e in Run.read(search_run).journal if e["event"] == "search"]
    assert len(rows) == len(recorded)
    for row, told in zip(rows, recorded, strict=True):
        assert int(row["step"]) == told["step"]
        assert float(row["expected_latency_ms"]) == told["expected"]["latency_ms"]
        assert float(row["budget_latency_ms"]) == told["budget"]["latency_ms"]
        assert float(row["entropy"]) == told["entropy"]
        assert row["collapsing"] == "no"
        for i, name in enumerate(("k3_e1", "k3_e3", "k5_e3", "skip")):
            found = row[f"probability:blocks.1:{name}"]
            assert float(found) == told["probabilities"]["blocks.1"][i]


def test_the_steps_as_markdown(search_run, tmp_path):
    lines = search_table(search_run).splitlines()
    assert len(lines) == 22
    assert lines[0].startswith("| Search | Step | Loss | Validation loss | Validation accuracy |")
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    with pytest.raises(BadInput, match="unknown table format"):
        search_table(search_run, "html")
    searches_of(tmp_path / "none", [])
    assert search_table(tmp_path / "none") == "| Search | Step |\n| --- | ---: |\n"


@pytest.mark.parametrize(("count", "most"), [(0, 5), (5, 5), (6, 5), (1000, 48), (49, 48)])
def test_thinning_keeps_both_ends_and_the_order(count, most):
    kept = thinned(range(count), most)
    assert len(kept) == min(count, most)
    assert kept == sorted(set(kept))
    if count:
        assert (kept[0], kept[-1]) == (0, count - 1)
