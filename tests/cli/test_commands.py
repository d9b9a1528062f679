import json
import os
import signal
import subprocess
import sys
import time

import pytest

from chipfit.cost.model import ERROR
from chipfit.cost.table import CostTable

MAIN = [sys.executable, "-m", "chipfit.cli.main"]
FIT = ["fit", "tiny_mobilenet_v2", "--target", "analytic", "--budget", "macs=70%", "--data", "digits",
       "--epochs", "0.3", "--recovery-epochs", "0.2", "--option", "steps=1", "--option", "short_steps=2",
       "--workers", "1", "--method", "netadapt"]  # fmt: skip


def run(*arguments, env=None):
    done = subprocess.run(
        [*MAIN, *map(str, arguments)], capture_output=True, text=True, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def error_of(done):
    assert done.returncode != 0
    return json.loads(done.stdout)["error"]


@pytest.mark.parametrize("name", ["targets", "nets", "methods", "data"])
def test_lists(name):
    rows = json.loads(run(name, "--json").stdout)
    assert all(row["name"] and row["summary"] for row in rows)
    assert run(name).stdout.count("\n") >= len(rows)
    if name == "methods":
        assert all(row["source"] for row in rows)
    known = {row["name"] for row in rows}
    assert (
        known
        >= {
            "targets": {
                "ethos-u55-32",
                "ethos-u65-512",
                "ethos-u85-2048",
                "onnxruntime-cpu",
                "analytic",
            },
            "nets": {"tiny_mobilenet_v2", "mobilenet_v2", "efficientnet_lite0"},
            "methods": {"netadapt"},
            "data": {"fashion-mnist", "mnist", "cifar10", "digits", "imagefolder"},
        }[name]
    )


def test_profile_of_a_network_from_a_file(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(): return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())\n"
        "make.input_shape = (1, 3, 10, 10)\n"
    )
    spec = f"{tmp_path / 'net.py'}:make"
    found = json.loads(run("profile", spec, "--target", "ethos-u55-128", "--json").stdout)
    assert found["provenance"] == "compiled"
    assert found["cost"]["macs"] == 8 * 64 * 27
    assert found["layers"][0]["name"] == "0"
    table = tmp_path / "calibrated.sqlite"
    with CostTable(table) as prices:  # else the whole calibration would run first
        prices.set_facts(found["fingerprint"], {ERROR: 0.02})
    predicted = json.loads(
        run("profile", spec, "--target", "ethos-u55-128", "--predict", "--table", table,
            "--json").stdout
    )  # fmt: skip
    assert predicted["provenance"] == "predicted"
    assert predicted["spread"]["latency_ms"] > 0
    wide = json.loads(
        run("profile", spec, "--target", "analytic", "--input", "1,3,18,18", "--json").stdout
    )
    assert wide["cost"]["macs"] == 8 * 256 * 27
    assert "macs" in run("profile", spec, "--target", "analytic").stdout


def test_fit_report_export_verify(tmp_path):
    folder = tmp_path / "run"
    done = run(*FIT, "--run", folder, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["budget_met"]
    assert data["front"][0]["id"] == "original"
    assert (folder / "report.html").is_file()
    assert (
        "chipfit fit tiny_mobilenet_v2"
        in json.loads((folder / "config.json").read_text())["command"]
    )
    assert "original" in run("report", folder).stdout
    taken = json.loads(run("export", folder, "--point", "knee", "--format", "tflite", "-o",
                           tmp_path / "out", "--json").stdout)  # fmt: skip
    checked = json.loads(run("verify", taken["file"], "--target", "ethos-u55-64", "--against",
                             f"{folder}:{taken['id']}", "--json").stdout)  # fmt: skip
    assert checked["top1_agreement"] > 0.8
    assert checked["fallbacks"] == []
    assert error_of(run("export", folder, "--point", "nobody", "--format", "onnx", "-o", tmp_path,
                        "--json"))["type"] == "BadInput"  # fmt: skip
    assert error_of(run(*FIT, "--seed", 1, "--run", folder, "--json"))["type"] == "RunMismatch"


MISTAKES = {
    "unknown target": (["profile", "mobilenet_v2", "--target", "ethos-u55-12"], 2, "ethos-u55-128"),
    "unknown net": (["profile", "mobilnet_v2", "--target", "analytic"], 2, "mobilenet_v2"),
    "unknown method": ([*FIT, "--method", "netadpt", "--run", "r"], 2, "netadapt"),
    "unknown data": ([*FIT[:7], "fashion-mnits", *FIT[8:], "--run", "r"], 2, "fashion-mnist"),
    "hopeless budget": ([*FIT[:5], "macs=10", *FIT[6:], "--run", "r"], 3, "original costs"),
    "bad budget": ([*FIT[:5], "latency=3", *FIT[6:], "--run", "r"], 2, "latency_ms"),
    "bad shape": (["profile", "mobilenet_v2", "--target", "analytic", "--input", "3,4"], 2, "1,3,224,224"),
    "no such folder": ([*FIT[:7], "imagefolder:/nonexistent", *FIT[8:], "--run", "r"], 2, ""),
    "not a run": (["report", "."], 2, "chipfit fit"),
    "no such option": (["profile", "mobilenet_v2", "--targt", "analytic"], 2, "--help"),
    "no such command": (["prune"], 2, "--help"),
    "no such file": (["verify", "none.tflite", "--target", "ethos-u55-128"], 2, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_a_message_and_a_hint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, hint = MISTAKES[name]
    plain = run(*arguments)
    assert plain.returncode == code
    assert plain.stderr.startswith(("error", "  0")) or "error:" in plain.stderr
    if arguments[0] != "prune" and "--targt" not in arguments:
        error = error_of(run(*arguments, "--json"))
        assert hint in error["hint"] + error["message"]
        assert error["message"]


def test_an_empty_data_folder(tmp_path):
    (tmp_path / "data").mkdir()
    arguments = [*FIT[:7], f"imagefolder:{tmp_path / 'data'}", *FIT[8:]]
    error = error_of(run(*arguments, "--run", tmp_path / "r", "--json"))
    assert str(tmp_path / "data") in error["message"]


def test_an_operator_the_target_cannot_run_is_named_with_its_place(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def forward(self, x): return torch.fft.fft2(x).abs()\n"
        "def make(): return nn.Sequential(nn.Conv2d(3, 8, 3), Odd())\n"
    )
    error = error_of(run("profile", f"{tmp_path / 'net.py'}:make", "--target", "ethos-u55-128",
                         "--input", "1,3,8,8", "--json"))  # fmt: skip
    assert error["type"] == "UnsupportedOp"
    assert "fft" in error["message"]
    assert "1.unsupported" in error["message"]


def test_a_training_that_diverges(tmp_path):
    (tmp_path / "task.py").write_text(
        "import chipfit as cf\n"
        "def make_task():\n"
        "    task = cf.tasks.classification('digits')\n"
        "    task.recipe = task.recipe.replace(learning_rate=1e12, epochs=1)\n"
        "    return task\n"
    )
    arguments = [*FIT[:7], str(tmp_path / "task.py"), *FIT[8:10], *FIT[10:]]
    error = error_of(run(*arguments, "--run", tmp_path / "r", "--json"))
    assert error["type"] == "TrainingDiverged"
    assert "learning rate" in error["message"] + error["hint"]


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    arguments = [*MAIN, *FIT, "--run", str(tmp_path / "run"), "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "run" / "journal.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "same command" in json.loads(out)["error"]["hint"]
    again = run(*FIT, "--run", tmp_path / "run", "--json")
    assert again.returncode == 0, again.stderr


def test_a_full_disk_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        error = error_of(run(*FIT, "--run", disk / "run", "--json"))
        assert error["type"] == "StorageError"
        assert "free some space" in error["hint"]
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        assert run(*FIT, "--run", disk / "run", "--json").returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
