# SPDX-License-Identifier: Apache-2.0
"""The family as Markdown, CSV and a terminal table."""

import csv
import io
import json
import subprocess
import sys

import pytest

from chipfit.errors import BadInput
from chipfit.report import family_table


def test_markdown_has_one_row_for_each_member(run_dir):
    lines = family_table(run_dir).splitlines()
    assert len(lines) == 2 + 8
    assert len({line.count(" | ") for line in lines}) == 1
    assert lines[0].startswith("| Member | Accuracy int8 | Accuracy float |")
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[0] == "original"
    assert cells[5] == "1.00×"


def test_csv_has_full_precision(run_dir):
    rows = list(csv.DictReader(io.StringIO(family_table(run_dir, "csv"))))
    assert len(rows) == 8
    for row in rows:
        path = run_dir / "candidates" / row["id"] / "candidate.json"
        data = json.loads(path.read_text())
        for key, value in (data["cost"] | data["metrics"]).items():
            assert float(row[key]) == value
        assert float(row["cpu_spread_ms"]) == data["cpu"]["spread_ms"]
        assert row["tflite_file"] == data["files"]["tflite"]
        first = float(rows[0]["latency_ms"])
        assert float(row["speedup"]) == pytest.approx(first / data["cost"]["latency_ms"])
        predicted = data["predicted"]["latency_ms"] / data["cost"]["latency_ms"] - 1
        assert float(row["latency_prediction_error"]) == pytest.approx(predicted)
    assert [row["within_budget"] for row in rows].count("yes") == 2


def test_rich_table_shows_everything(run_dir):
    text = family_table(run_dir, "rich")
    for part in ("netadapt-07", "Speedup", "91.88", "tiny_mobilenet_v2 → ethos-u55-128"):
        assert part in text
    assert "\x1b" not in text


def test_unknown_figures_are_dashes_or_empty(run_dir):
    path = run_dir / "candidates" / "netadapt-03" / "candidate.json"
    path.write_text(json.dumps({"id": "a|b<i>", "cost": {}, "metrics": {"val_accuracy": 0.5}}))
    line = next(line for line in family_table(run_dir).splitlines() if "a\\|b" in line)
    assert "&lt;i>" in line
    assert line.count("—") == 9
    rows = csv.DictReader(io.StringIO(family_table(run_dir, "csv")))
    row = next(row for row in rows if row["id"] == "a|b<i>")
    assert row["latency_ms"] == row["within_budget"] == row["onnx_file"] == ""


def test_an_unknown_format_is_refused(run_dir):
    with pytest.raises(BadInput, match="known: markdown, csv, rich"):
        family_table(run_dir, "xml")


def test_reports_import_neither_torch_nor_matplotlib():
    code = (
        "import sys; sys.modules['chipfit'] = m = type(sys)('chipfit');"
        "m.__path__ = [sys.argv[1]]; import chipfit.report, chipfit.report.png;"
        "print([n for n in ('torch', 'matplotlib', 'numpy', 'rich') if n in sys.modules])"
    )
    import chipfit.report

    package = chipfit.report.__file__.rsplit("/report/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", code, package], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
