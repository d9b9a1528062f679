"""``kill -9`` at any moment, then the same command: the front of an undisturbed run."""

import json
import random
import subprocess
import sys
import time

import pytest
import torch

from chipfit.files import read_state

COMMAND = [
    sys.executable, "-m", "chipfit.cli.main", "fit", "tiny_mobilenet_v2", "--target", "ethos-u55-128",
    "--budget", "latency_ms=75%", "--data", "digits", "--epochs", "1", "--recovery-epochs", "1",
    "--option", "steps=3", "--option", "short_steps=3", "--method", "netadapt",
    "--workers", "2", "--json",
]  # fmt: skip
KILLS = 10


def _start(folder):
    return subprocess.Popen(
        [*COMMAND, "--run", str(folder / "run"), "--table", str(folder / "costs.sqlite")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _front(process, folder):
    out, err = process.communicate()
    assert process.returncode == 0, err
    front = json.loads(out)["front"]
    for member in front:
        member.pop("cpu")  # measured on this machine, so never the same twice
        member["files"] = sorted(member["files"])
    weights = {
        str(p.relative_to(folder)): read_state(p)
        for p in sorted((folder / "run" / "candidates").rglob("*.safetensors"))
    }
    files = {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted((folder / "run" / "candidates").rglob("*.tflite"))
    }
    return front, weights, files


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path):
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()
    calm = _front(_start(tmp_path / "calm"), tmp_path / "calm")
    draw, journal = random.Random(0), tmp_path / "killed" / "run" / "journal.jsonl"
    killed, places = 0, []
    while killed < KILLS:
        process = _start(tmp_path / "killed")
        grown = journal.stat().st_size if journal.exists() else 0
        # Wait for some progress, then for a random moment of the work that follows it.
        while process.poll() is None and (
            not journal.exists() or journal.stat().st_size <= grown
        ):  # fmt: skip
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, 2.0))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        killed += 1
        places.append(len(journal.read_text().splitlines()))
    assert killed == KILLS, f"the run ended after {killed} kills, at journal lines {places}"
    disturbed = _front(_start(tmp_path / "killed"), tmp_path / "killed")
    assert disturbed[0] == calm[0]
    assert disturbed[1].keys() == calm[1].keys()
    for name, state in calm[1].items():
        assert all(torch.equal(state[k], disturbed[1][name][k]) for k in state), name
    assert disturbed[2] == calm[2]
