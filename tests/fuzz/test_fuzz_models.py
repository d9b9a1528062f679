# SPDX-License-Identifier: Apache-2.0
"""Damaged model files end in an error of chipfit, never in a traceback, a crash or a hang."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from chipfit.errors import BadInput, ChipfitError
from chipfit.export.onnx import to_onnx_bytes
from chipfit.export.tflite import synthetic_ranges, to_tflite
from chipfit.graph.capture import capture
from chipfit.targets import create
from chipfit.targets.cortex_m_model import work_of_file
from chipfit.targets.isolated import Isolated
from chipfit.targets.timing import Protocol

pytest.importorskip("ethosu")
pytest.importorskip("onnxruntime")
pytest.importorskip("tflite_micro")
sys.path.append(str(Path(__file__).parent))

from mutations import damaged, examples, survives

NET = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 2, 1, groups=8),
    nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(64, 5),
).eval()  # fmt: skip


def tflite():
    torch.manual_seed(0)
    program = capture(NET, torch.zeros(1, 3, 8, 8))
    return to_tflite(program, synthetic_ranges(program.workload)).data


TFLITE = tflite()
ONNX = to_onnx_bytes(NET, torch.zeros(1, 3, 8, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@examples(250)
@given(data=damaged(TFLITE))
def test_work_in_a_damaged_tflite_file(data):
    survives(lambda: work_of_file(data, "net.tflite"))


@examples(60)
@given(data=damaged(TFLITE))
def test_damaged_tflite_on_a_microcontroller(folder, data):
    (folder / "m.tflite").write_bytes(data)
    survives(lambda: create("cortex-m4").cost_file(folder / "m.tflite"))


@examples(25)
@given(data=damaged(TFLITE), name=st.sampled_from(["ethos-u55-128", "ethos-u85-256"]))
def test_damaged_tflite_on_ethos_u(folder, data, name):
    (folder / "e.tflite").write_bytes(data)
    survives(lambda: create(name).cost_file(folder / "e.tflite"))


@pytest.fixture(scope="module")
def cpu():
    target = create("onnxruntime-cpu")
    target.protocol = Protocol(min_rounds=3, max_rounds=3, sessions=1, warm_up=1, sample_ms=0.01)
    return target


@examples(40)
@given(data=damaged(ONNX))
def test_damaged_onnx(folder, cpu, data):
    (folder / "o.onnx").write_bytes(data)
    survives(lambda: cpu.cost_file(folder / "o.onnx"))


def test_the_whole_files_are_read(folder):
    (folder / "whole.tflite").write_bytes(TFLITE)
    for name in ("cortex-m4", "ethos-u55-128"):
        assert create(name).cost_file(folder / "whole.tflite").total["latency_ms"] > 0


def test_a_crash_of_a_library_is_an_error_and_the_next_file_is_read():
    job = Isolated("vela")
    try:
        with pytest.raises(BadInput, match="crashes on net.tflite"):
            job._running().kill()
            job._process.poll = lambda: None  # the parent has not noticed yet
            job.ask({"arguments": []}, b"", "net.tflite")
        reply = job.ask({"arguments": ["--version"]}, b"", "net.tflite")
        assert "log" in reply
    finally:
        job.stop()


def test_a_library_that_hangs_is_given_up():
    job = Isolated("tflite_micro", timeout_s=0.0)
    try:
        with pytest.raises(BadInput, match="does not finish"):
            job.ask({}, TFLITE, "net.tflite")
        assert job._process is None
    finally:
        job.stop()


@pytest.mark.parametrize("name", ["cortex-m4", "ethos-u55-128", "onnxruntime-cpu"])
@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"TFL3" * 8, b"\x1c\0\0\0TFL3" + b"\xff" * 64],
                         ids=["empty", "zeros", "marks", "ones"])  # fmt: skip
def test_garbage_is_bad_input(folder, name, data):
    (folder / "garbage").write_bytes(data)
    with pytest.raises(BadInput):
        create(name).cost_file(folder / "garbage")


def test_folders_are_no_files(folder):
    for name in ("cortex-m4", "ethos-u55-128", "onnxruntime-cpu"):
        with pytest.raises(ChipfitError):
            create(name).cost_file(folder)
