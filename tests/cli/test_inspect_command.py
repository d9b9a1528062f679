# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys

import pytest

MAIN = [sys.executable, "-m", "chipfit.cli.main"]
ODD = """
import torch
from torch import nn

class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).abs()

def make():
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 16, 1), Fourier())
make.input_shape = (1, 3, 10, 10)

def upscaler():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Upsample(scale_factor=3, mode="bilinear"),
                         nn.Conv2d(16, 8, 1))
upscaler.input_shape = (1, 3, 18, 18)
"""


def run(*arguments):
    done = subprocess.run(
        [*MAIN, *map(str, arguments)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


@pytest.fixture
def odd(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(ODD)
    return path


def test_inspect_prints_one_document_and_draws(odd, tmp_path):
    pytest.importorskip("ethosu")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    done = run("inspect", f"{odd}:make", "--target", "ethos-u55-128", "--seconds", "20", "--plot",
               picture, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["plot"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert document["curves"][0]["layer"] == "0"
    assert document["unsupported"]
    assert document["cost"] is None
    disliked = {item["name"]: item for item in document["misaligned"]}
    assert [b["channels"] for b in disliked["0"]["better"]] == [8, 16]
    assert all(b["latency_ms_change"] is not None for b in disliked["0"]["better"])


def test_inspect_is_readable(odd):
    done = run("inspect", f"{odd}:make", "--target", "analytic")
    assert done.returncode == 0, done.stderr
    for text in ("channel groups", "fft", "left out", "total is unknown"):
        assert text in done.stdout
    assert "not a multiple of" not in done.stdout  # analytic aligns to 1
    plain = run("inspect", f"{odd}:make").stdout
    assert "not a multiple of 8" in plain
    assert "roofline" not in plain


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["tiny_mobilenet_v2", "--target", "analytic", "--plot", "a.pdf"], ".png"),
        (["tiny_mobilenet_v2", "--plot", "a.png"], "--target"),
        (["tiny_mobilenet_v2", "--target", "analytc"], "analytic"),
        (["tiny_mobilenet", "--target", "analytic"], "tiny_mobilenet_v2"),
        (["tiny_mobilenet_v2", "--seconds", "-1"], "seconds"),
    ],
)
def test_mistakes(arguments, hint):
    done = run("inspect", *arguments, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert hint in error["message"] + error["hint"]


def test_a_plot_without_curves_is_a_warning(odd, tmp_path):
    picture = tmp_path / "none.svg"
    done = run("inspect", f"{odd}:make", "--target", "analytic", "--plot", picture)
    assert done.returncode == 0
    assert "warning" in done.stderr
    assert not picture.exists()


def test_verify_reports_fallbacks(odd, tmp_path):
    pytest.importorskip("ethosu")
    path = tmp_path / "net.tflite"
    code = (
        "from pathlib import Path\nfrom chipfit.flow.network import load_network\n"
        "from chipfit.graph.capture import capture\n"
        "from chipfit.export.tflite import synthetic_ranges, to_tflite\n"
        f"loaded = load_network({f'{odd}:upscaler'!r})\n"
        "program = capture(loaded.net, loaded.example())\n"
        f"to_tflite(program, synthetic_ranges(program.workload)).save(Path({str(path)!r}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    done = run("verify", path, "--target", "ethos-u55-128", "--json")
    assert done.returncode == 0
    assert "warning" in done.stderr
    assert "latency is unknown" in done.stderr.replace("\n", " ")
    document = json.loads(done.stdout)
    assert [f["kind"] for f in document["fallbacks"]] == ["ResizeBilinear"]
    assert "latency_ms" not in document["cost"]
    strict = run("verify", path, "--target", "ethos-u55-128", "--strict", "--json")
    assert strict.returncode == 2
    assert json.loads(strict.stdout)["error"]["type"] == "UnsupportedOp"
    shown = run("verify", path, "--target", "ethos-u55-128").stdout
    assert "not on the accelerator: 1 (ResizeBilinear)" in shown


def test_what_libraries_print_stays_out_of_the_document(tmp_path):
    (tmp_path / "loud.py").write_text(
        "print('hello from the import')\nfrom torch import nn\n"
        "def make():\n    print('hello from the factory')\n    return nn.Conv2d(3, 8, 1)\n"
        "make.input_shape = (1, 3, 4, 4)\n"
    )
    done = run("inspect", f"{tmp_path / 'loud.py'}:make", "--json")
    assert json.loads(done.stdout)["macs"] == 16 * 24
    assert done.stderr.count("hello") == 2
    assert "hello" in run("inspect", f"{tmp_path / 'loud.py'}:make").stdout
