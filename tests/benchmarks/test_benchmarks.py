"""Every benchmark on its smallest setting, as the command that it is."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import chipfit as cf

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.finished import FinishedRun  # noqa: E402
from benchmarks.output import Report, cell, percentile, spread  # noqa: E402
from benchmarks.run import NAMES, QUICK  # noqa: E402
from benchmarks.variants import unseen, width_variants  # noqa: E402
from chipfit.errors import BadInput, RunMismatch  # noqa: E402
from chipfit.train.jobs import Bench  # noqa: E402

NET = """
from torch import nn

def small(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, num_classes),
    )
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a tiny network, in two steps."""
    place = tmp_path_factory.mktemp("benchmarks")
    (place / "net.py").write_text(NET)
    cf.fit(
        f"{place / 'net.py'}:small", "ethos-u55-128", "latency_ms=80%", "digits",
        run=place / "run", epochs=1, recovery_epochs=0.2, workers=1, table=place / "costs.sqlite",
        method="netadapt", method_options={"steps": 2, "short_steps": 2, "val_images": 50},
    )  # fmt: skip
    return place / "run"


def results(name, out):
    """Return the rows of every table that a benchmark wrote, its machine being named."""
    data = json.loads((out / f"{name}.json").read_text())
    assert data["machine"]["cores"]
    assert data["machine"]["cpu"] in (out / f"{name}.md").read_text()
    return [table["rows"] for table in data["tables"]]


def run_benchmark(name, out, *arguments):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.main(["--out", str(out), *arguments]) == 0
    return results(name, out)


def test_run_runs_the_benchmarks_it_is_told_to(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--only", "tracing"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch.export" in done.stdout
    (rows,), (ran,) = results("tracing", tmp_path), results("run", tmp_path)
    assert [row["benchmark"] for row in ran] == ["tracing"]
    assert len(rows) == 5
    assert rows[0]["tracer"] == "chipfit trace"
    assert rows[0]["warm x ours"] == 1
    assert all(row["warm ms"]["median"] > 0 for row in rows)


def test_a_first_trace_is_timed():
    from benchmarks.tracing import TRACERS, cold_ms

    assert all(cold_ms(None, ("tiny_mobilenet_v2@1x1x8x8", name)) > 0 for name in TRACERS)


def test_run_says_what_is_missing(tmp_path, capsys):
    from benchmarks.run import main

    assert main(["--run", str(tmp_path / "nothing")]) == BadInput.exit_code
    assert "--method netadapt" in capsys.readouterr().err


def test_profile_agrees_with_the_command_line_of_vela(tmp_path):
    ((row,),) = run_benchmark("profile_all", tmp_path, *QUICK["profile_all"])
    assert row["difference"] == 0
    assert row["ms (vela)"] == pytest.approx(row["latency ms"])
    assert row["SRAM KiB (vela)"] == pytest.approx(row["SRAM KiB"], abs=0.01)


def test_a_disagreement_with_vela_is_reported():
    from benchmarks.profile_all import disagreements

    row = {"network": "mobilenet_v2@1x3x224x224", "target": "t", "cycles": 7, "cycles (vela)": 7,
           "difference": 0, "M MACs": 300.774}  # fmt: skip
    assert disagreements([row]) == []
    assert "Vela says 7" in disagreements([{**row, "cycles": 8, "difference": 1}])[0]
    assert "published 300.8" in disagreements([{**row, "M MACs": 299.0}])[0]


def test_cost_table(tmp_path, finished):
    accuracy, queries, fills = run_benchmark(
        "cost_table", tmp_path, *QUICK["cost_table"], "--run", str(finished)
    )
    assert [row["predictor"] for row in accuracy[:4]] == [row["predictor"] for row in accuracy[4:]]
    assert {row["predictor"] for row in accuracy} == {
        "cost table", "isolated operators", "isolated operators x one factor", "MACs x one factor",
    }  # fmt: skip
    assert all(row["worst %"] >= row["MAPE %"] >= abs(row["bias %"]) for row in accuracy)
    (query,) = queries
    assert query["queries"] == 20
    assert query["p95 ms"] >= query["median ms"] > 0
    assert [row["workers"] for row in fills] == [1, 2]
    assert all(row["units"] == 24 for row in fills)


def test_baselines(tmp_path, finished):
    from benchmarks.baselines import contestants, jobs_of
    from benchmarks.recovering import recover

    arguments = [*QUICK["baselines"], "--run", str(finished), "--workers", "2"]
    (rows,) = run_benchmark("baselines", tmp_path, *arguments)
    run = FinishedRun.open(finished)
    spent = run.images(run.member_at_budget())
    images = {row["network"]: row["images"] for row in rows}
    assert list(images) == [
        "original", "NetAdapt", "uniform widths, lineage", "uniform widths, all",
        "magnitude pruning, lineage", "magnitude pruning, all",
    ]  # fmt: skip
    assert images["NetAdapt"] == spent["lineage"] + spent["recovery"]
    for kind in ("uniform widths", "magnitude pruning"):
        assert images[f"{kind}, lineage"] == images["NetAdapt"]
        assert images[f"{kind}, all"] == spent["proposals"] + spent["recovery"]
    assert all(row["x budget"] < 1.01 for row in rows[1:])
    # The same job gives the same figures wherever it runs.
    bench = Bench(run.net, run.task)
    jobs = jobs_of(run, contestants(run, widths=False), 1, tmp_path / "files")
    for job, row in [(jobs[2], rows[3]), (jobs[4], rows[5])]:
        again = recover(bench, job)
        assert again["row"] == row["network"]
        assert again["test"] == row["test accuracy"]["median"]
        assert again["int8_test"] == row["int8 accuracy"]["median"]
        assert again["cost"]["latency_ms"] == row["latency_ms"]["median"]


def test_images_are_counted_from_the_journal(finished):
    run = FinishedRun.open(finished)
    member = run.member_at_budget()
    spent = run.images(member)
    per_proposal = 2 * run.recipe.batch_size
    proposals = [
        e for e in run.run.journal if e["event"] == "proposal" and e["step"] <= member.step
    ]
    assert spent["lineage"] == member.step * per_proposal
    assert spent["proposals"] == len(proposals) * per_proposal
    assert spent["recovery"] == 4 * run.recipe.batch_size  # 0.2 of an epoch of 20 steps


def test_a_run_is_refused_for_another_target_or_unfinished(finished, tmp_path):
    with pytest.raises(RunMismatch, match="ethos-u55-256"):
        FinishedRun.open(finished, "ethos-u55-256")
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    with pytest.raises(BadInput, match="not finished"):
        FinishedRun.open(tmp_path)


def test_statistics_and_cells():
    assert spread([3, 1, 2]) == {"median": 2, "min": 1, "max": 3, "n": 3}
    assert [percentile(list(range(1, 101)), p) for p in (1, 50, 95, 100)] == [1, 50, 95, 100]
    assert percentile([4.0], 95) == 4.0
    assert cell(spread([1.0, 2.0, 4.0])) == "2 (1..4)"
    assert cell(spread([2.0, 2.0])) == "2"
    assert [cell(v) for v in (None, True, 12345, 0.123456)] == ["—", "yes", "12,345", "0.1235"]


def test_a_report_is_written_as_json_and_markdown(tmp_path, capsys):
    report = Report("name", {"seeds": 1}, tmp_path)
    report.table("title", [{"a|b": 1, "c": "[x]"}], "a note")
    report.write()
    assert json.loads((tmp_path / "name.json").read_text())["tables"][0]["rows"][0]["a|b"] == 1
    text = (tmp_path / "name.md").read_text()
    assert "| a\\|b | c |" in text
    assert "| 1 | [x] |" in text
    assert "a note" in text
    assert "[x]" in capsys.readouterr().out


def test_variants_are_reproducible_and_unseen_copies_are_equal():
    one, two = (width_variants("tiny_mobilenet_v2@1x1x8x8", 8, 2) for _ in range(2))
    assert [w.key for w in one] == [w.key for w in two]
    assert one[0].key != one[1].key
    copy = unseen(one[0])
    assert copy.key == one[0].key
    assert copy.nodes[0].op is not one[0].nodes[0].op


def test_every_benchmark_has_a_smallest_setting():
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(NAMES) <= files
