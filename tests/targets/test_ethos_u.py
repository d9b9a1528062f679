# SPDX-License-Identifier: Apache-2.0
import csv
import os
import subprocess
import sys
import tempfile

import pytest
import torch
from torch import nn

from chipfit import nets
from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, ChipfitError, UnsupportedOp
from chipfit.export.tflite import synthetic_ranges, to_tflite
from chipfit.graph import trace
from chipfit.graph.execute import synthetic_parameters
from chipfit.targets import create
from chipfit.targets.vela import VelaResult, VelaRow, compile_tflite, rows_by_node
from chipfit.targets.vela_config import VelaConfig, arena_cache_bytes

pytest.importorskip("ethosu")


@pytest.fixture(scope="module")
def tiny():
    return trace(nets.create("tiny_mobilenet_v2").eval(), torch.zeros(1, 1, 28, 28))


def tflite_of(workload, path):
    program = synthetic_parameters(workload)
    to_tflite(program, synthetic_ranges(workload)).save(path)
    return path


class Around(nn.Module):
    """Puts a module between two convolutions."""

    def __init__(self, inner):
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 16, 3), inner, nn.Conv2d(16, 8, 1)

    def forward(self, x):
        return self.last(self.inner(self.first(x)))


def around(inner):
    return trace(Around(inner).eval(), torch.zeros(1, 3, 34, 34))


@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
def test_figures_are_those_of_vela_with_its_own_defaults(name, tiny, tmp_path):
    target = create(name)
    file = tflite_of(tiny, tmp_path / "net.tflite")
    command = [sys.executable, "-m", "ethosu.vela", str(file), "--output-dir", str(tmp_path)]
    subprocess.run([*command, "--accelerator-config", name], check=True, capture_output=True)
    summary = next(tmp_path.glob("*_summary_*.csv"))
    with summary.open() as lines:
        row = next(csv.DictReader(lines))
    total = target.cost_file(file).total
    assert total["cycles"] == float(row["cycles_total"])
    assert total["latency_ms"] == pytest.approx(float(row["inference_time"]) * 1e3)
    assert total["peak_sram_bytes"] == float(row["sram_memory_used"]) * 1024
    assert target.config.system_config == row["system_config"]
    assert target.config.memory_mode == row["memory_mode"]
    assert total["flash_bytes"] == (tmp_path / "net_vela.tflite").stat().st_size
    network = target.cost(tiny).total
    assert network["cycles"] == total["cycles"]


def test_parameters_of_a_file_are_counted_in_the_file(bottlenecks, tmp_path):
    workload = bottlenecks([16, 24])
    target = create("ethos-u55-64")
    whole = target.cost(workload).total
    file = target.cost_file(tflite_of(workload, tmp_path / "net.tflite")).total
    assert file["params"] == whole["params"] == workload.parameter_count
    assert file["weight_bytes"] == whole["weight_bytes"]
    assert file["macs"] == whole["macs"]


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("ethos-u55-32", 0.01),
        ("ethos-u55-128", 0.01),
        ("ethos-u55-256", 0.01),
        ("ethos-u65-512", 0.01),
        ("ethos-u85-256", 0.03),
    ],
)
def test_units_predict_the_whole(name, bound, tiny):
    target = create(name)
    whole, guess = target.cost(tiny), predict(tiny, target, CostTable())
    assert guess.total["cycles"] == pytest.approx(whole.total["cycles"], rel=bound)
    assert guess.total["latency_ms"] == pytest.approx(whole.total["latency_ms"], rel=bound)
    missed = sum(
        abs(a.cost["cycles"] - b.cost["cycles"])
        for a, b in zip(whole.layers, guess.layers, strict=True)
    )
    assert missed < 2 * bound * whole.total["cycles"]  # not right by cancelling alone


class Blocks(nn.Module):
    """Pre-activated convolutions and bottlenecks, each with a shortcut around it."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, 2, 1)
        self.pre = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        inner = channels // 4
        self.bottlenecks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, inner, 3, padding=1),
                nn.ReLU(), nn.Conv2d(inner, channels, 1),
            )
            for _ in range(2)
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        for conv in self.pre:
            x = x + conv(nn.functional.relu6(x))
        for body in self.bottlenecks:
            x = nn.functional.relu(x + body(x))
        return x


@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos-u65-512", "ethos-u85-256"])
def test_shortcuts_are_predicted(name):
    workload = trace(Blocks(64), torch.zeros(1, 3, 40, 40))
    target = create(name)
    whole, guess = target.cost(workload), predict(workload, target, CostTable())
    assert guess.total["cycles"] == pytest.approx(whole.total["cycles"], rel=0.02)


def test_crowded_operators_see_further(tiny):
    free, tight = create("ethos-u65-256"), create("ethos-u65-256:memory_mode=Dedicated_Sram_256KB")
    lengths = [[len(u.indices) for u in t.units(tiny)] for t in (free, tight)]
    assert lengths[0] == lengths[1]  # 28 x 28 crowds neither
    workload = trace(Blocks(64), torch.zeros(1, 3, 72, 72))
    # 249 kB at the pre-activated convolutions: three quarters of 384 KB are 295 kB, of 256 KB 197
    lengths = [[len(u.indices) for u in t.units(workload)] for t in (free, tight)]
    assert max(lengths[0]) < max(lengths[1])
    shared = VelaConfig("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")
    assert arena_cache_bytes(shared) == float("inf")


def test_what_the_npu_cannot_run_is_named(tmp_path):
    target = create("ethos-u55-128")
    resize = around(nn.Upsample(scale_factor=3, mode="bilinear"))
    refused = target.refusals(resize)
    assert [(r.name, r.kind) for r in refused] == [("inner", "resize")]
    assert "CPU" in refused[0].reason
    with pytest.raises(UnsupportedOp, match="inner: resize"):
        target.cost(resize)
    with pytest.raises(UnsupportedOp, match="inner: resize"):
        target.cost_units(target.units(resize))
    file = tflite_of(resize, tmp_path / "net.tflite")
    result = target.compile_file(file)
    assert result.cpu_ops == ["inner (ResizeBilinear)"]
    assert {"first", "last"} <= set(result.npu_ops)
    with pytest.raises(UnsupportedOp, match="inner"):
        target.cost_file(file)
    wide_steps = around(
        nn.Conv2d(16, 16, 3, stride=4, padding=1)
    )  # Vela stops here rather than fall back
    assert [r.name for r in target.refusals(wide_steps)] == ["inner"]
    with pytest.raises(UnsupportedOp, match="inner: conv2d"):
        target.cost(wide_steps)
    assert create("ethos-u85-128").refusals(wide_steps) == []


def test_vela_is_silent_and_leaves_nothing(bottlenecks, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = create("ethos-u55-64")
    target.cost(bottlenecks([16]))
    with pytest.raises(ChipfitError):
        compile_tflite(b"no network at all", target.config)
    os.write(1, b"descriptor")
    print("stream")
    out, err = capfd.readouterr()
    assert (out, err) == ("descriptorstream\n", "")
    assert list(tmp_path.iterdir()) == []


def test_options_change_cost_and_fingerprint(bottlenecks):
    workload = bottlenecks([64])
    shared = create("ethos-u55-256")
    alone = create("ethos-u55-256", memory_mode="Sram_Only")
    assert shared.fingerprint != alone.fingerprint
    assert shared.cost(workload).total["cycles"] != alone.cost(workload).total["cycles"]
    slow = create("ethos-u55-256", system_config="Ethos_U55_Deep_Embedded").cost(workload).total
    assert slow["latency_ms"] == pytest.approx(slow["cycles"] / 200e6 * 1e3)


def row(name, operator="Conv2D", cycles=5):
    return VelaRow(name, operator, operator, cycles, cycles, 0, True)


def test_every_row_finds_its_node(bottlenecks):
    workload = bottlenecks([16])
    tensors = {node.name: [node.name] for node in workload.nodes}
    rows = (row("input_buffer_", "MemoryCopy"), row("b0.expand"), row("b0.depth_part_1"))
    result = VelaResult(1.0, 15, 0, 0, 0, 0, 0, rows, "")
    found = rows_by_node(result, tensors, workload)
    assert [len(own) for own in found.values()] == [2, 1, 0, 0]
    stray = VelaResult(1.0, 5, 0, 0, 0, 0, 0, (row("elsewhere"),), "")
    with pytest.raises(ChipfitError, match="elsewhere"):
        rows_by_node(stray, tensors, workload)


def test_a_transposition_of_a_tensor_that_nothing_writes_is_paid_by_its_reader(bottlenecks):
    workload = bottlenecks([16])
    first, second = workload.nodes[:2]
    written = {node.name: [node.output] for node in workload.nodes if node is not first}
    rows = (row(f"{first.output}/Transpose", "Transpose"),)
    found = rows_by_node(VelaResult(1.0, 5, 0, 0, 0, 0, 0, rows, ""), written, workload)
    assert len(found[second.name]) == 1


def test_files_that_are_no_whole_networks(bottlenecks, tmp_path):
    target = create("ethos-u55-32")
    with pytest.raises(BadInput, match="cannot read"):
        target.cost_file(tmp_path / "absent.tflite")
    file = tflite_of(bottlenecks([16]), tmp_path / "net.tflite")
    whole = file.read_bytes()
    for length in (9, 100, len(whole) // 2, len(whole) - 200):
        file.write_bytes(whole[:length])
        with pytest.raises(BadInput, match="damaged"):
            target.cost_file(file)
    file.write_bytes(b"\0\0\0\0TFL3 and then nonsense")
    with pytest.raises(BadInput, match=r"damaged|no operators"):
        target.cost_file(file)
