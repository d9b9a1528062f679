"""The example of a loop of one's own: NetAdapt end to end, killed and continued, in workers."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import chipfit as cf
from chipfit.errors import BadInput

FILE = Path(__file__).parents[2] / "examples" / "own_loop.py"
SETTINGS = {
    "method": "netadapt", "workers": 1, "epochs": 1.0, "recovery_epochs": 0.2,
    "method_options": {"steps": 2, "short_steps": 2},
}  # fmt: skip


@pytest.mark.slow
def test_killed_and_continued_in_worker_processes(tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "chipfit.cli.main", "fit", f"{FILE}:net", "--target", "ethos-u55-128",
        "--budget", "latency_ms=90%", "--data", str(FILE), "--method", "netadapt", "--epochs", "1",
        "--recovery-epochs", "0.2", "--option", "steps=2", "--option", "short_steps=2",
        "--workers", "2", "--json", "--table", str(tmp_path / "costs.sqlite"), "--run", str(run),
    ]  # fmt: skip
    journal = run / "journal.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (
        journal.exists() and "original/trained" in journal.read_text()
    ):
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = journal.read_text().splitlines()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["budget_met"]
    # The original was not trained again.
    assert sum("original/trained" in line for line in journal.read_text().splitlines()) == 1
    assert any("original/trained" in line for line in before)
    assert {"val_score", "test_score", "int8_test_score"} <= answer["front"][0]["metrics"].keys()


def test_without_calibration_float_targets_work_and_int8_says_what_to_add(tmp_path):
    text = FILE.read_text().replace("def calibration()", "def unused()")
    (tmp_path / "loop.py").write_text(text + "\ninput_shape = (1, 1, 8, 8)\n")
    spec = str(tmp_path / "loop.py")
    with pytest.raises(BadInput, match=r"define calibration\(\)"):
        cf.fit(
            f"{spec}:net", "ethos-u55-128", "latency_ms=80%", spec, run=tmp_path / "a", **SETTINGS
        )
    done = cf.fit(f"{spec}:net", "analytic", "macs=80%", spec, run=tmp_path / "b", table=tmp_path / "c.sqlite", **SETTINGS)  # fmt: skip
    assert done.budget_met
    for folder in (tmp_path / "b" / "candidates").iterdir():
        assert not (folder / "model.tflite").exists()
        assert (folder / "weights.safetensors").exists()
    assert list((tmp_path / "b" / "candidates").rglob("model.onnx"))
    for member in done.front():
        assert "int8_test_score" not in member.metrics
