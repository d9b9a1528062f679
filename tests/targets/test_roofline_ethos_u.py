# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import torch
from torch import nn

from chipfit.export.tflite import synthetic_ranges, to_tflite
from chipfit.graph import trace
from chipfit.graph.execute import synthetic_parameters
from chipfit.targets import create
from chipfit.targets.base import Roofline

pytest.importorskip("ethosu")

#: MACs a second, bytes a second of weights and of activations, from the bundled vela.ini by hand:
#: bytes a cycle of the port (8 on U55, else 16), ports, clock of the memory, clock of the NPU.
EXPECTED = {
    "ethos-u55-128": (128 * 500e6, 8 * 0.125 * 500e6, "off-chip flash", 8 * 500e6),
    "ethos-u55-256:memory_mode=Sram_Only": (256 * 500e6, 8 * 500e6, "SRAM", 8 * 500e6),
    "ethos-u55-32:system_config=Ethos_U55_Deep_Embedded":
        (32 * 200e6, 8 * 0.0625 * 200e6, "off-chip flash", 8 * 200e6),
    "ethos-u65-512": (512 * 1e9, 16 * 0.75 * 1e9, "DRAM", 16 * 1e9),
    "ethos-u85-256": (256 * 1e9, 16 * 0.75 * 1e9, "DRAM", 16 * 2 * 1e9),
    "ethos-u85-2048:system_config=Ethos_U85_SYS_DRAM_High":
        (2048 * 1e9, 16 * 2 * 0.75 * 1e9, "DRAM", 16 * 4 * 1e9),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_peaks_are_those_of_the_configuration(name):
    macs_per_s, bytes_per_s, memory, fast_bytes_per_s = EXPECTED[name]
    roofline = create(name).roofline()
    assert roofline.macs_per_s == macs_per_s
    assert roofline.bytes_per_s == pytest.approx(bytes_per_s)
    assert roofline.memory == memory
    assert roofline.activation_bytes_per_s == pytest.approx(fast_bytes_per_s)
    assert roofline.activation_memory == "SRAM"
    assert roofline.provenance == "specified"


def test_least_times():
    apart = Roofline(1e9, 1e6, "flash", "specified", 2e6, "SRAM")
    assert apart.least_layer_ms(1e6, 3e3, 4e3) == 3.0  # 1 ms of MACs, 3 ms of flash, 2 ms of SRAM
    assert apart.bound(1e6, 3e3, 4e3) == "memory"
    assert apart.bound(4e6, 3e3, 4e3) == "arithmetic"
    shared = Roofline(1e9, 1e6, "DRAM", "measured")
    assert shared.least_layer_ms(1e6, 3e3, 4e3) == 7.0
    assert shared.least_ms(1e6, 7e3) == 7.0


@pytest.fixture(scope="module")
def upscaler():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Upsample(scale_factor=3, mode="bilinear"), nn.Conv2d(16, 8, 1)
    )
    return trace(net.eval(), torch.zeros(1, 3, 18, 18))


def save(workload, path):
    to_tflite(synthetic_parameters(workload), synthetic_ranges(workload)).save(path)
    return path


def test_a_file_with_fallbacks_is_costed_in_part(upscaler, tmp_path):
    target = create("ethos-u55-128")
    cost, left = target.cost_file_parts(save(upscaler, tmp_path / "net.tflite"))
    assert [(r.name, r.kind) for r in left] == [("1", "ResizeBilinear")]
    assert "CPU" in left[0].reason
    assert "latency_ms" not in cost.total
    assert "cycles" not in cost.total
    assert cost.total["flash_bytes"] > 0
    places = {layer.name: layer for layer in cost.layers}
    assert places["1"].runs_on == "cpu"
    assert "latency_ms" not in places["1"].cost
    assert places["0"].runs_on == places["2"].runs_on == "npu"
    assert places["0"].cost["latency_ms"] > 0
    assert {layer.precision for layer in cost.layers} == {"int8"}


def test_what_runs_adds_up(bottlenecks, tmp_path):
    target = create("ethos-u55-128")
    workload = bottlenecks([16])
    nodes = target.runtime_nodes(workload)
    assert sum(node.share for node in nodes) == pytest.approx(1)
    assert {node.layer for node in nodes} == set(workload.by_name)
    assert {node.precision for node in nodes} == {"int8"}
    of_file = target.runtime_nodes(Path(save(workload, tmp_path / "net.tflite")))
    assert [(n.kind, n.share) for n in of_file] == [(n.kind, n.share) for n in nodes]
    # Without the network, a layer is the tensor that it writes.
    assert [n.layer for n in of_file] == [workload.by_name[n.layer].output for n in nodes]
    whole = target.cost(workload)
    assert {layer.runs_on for layer in whole.layers} == {"npu"}


def test_refusals_beside_an_unknown_operator_cost_one_compile(upscaler, monkeypatch):
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x).abs()

    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), Fourier(), nn.Upsample(scale_factor=3, mode="bilinear"),
        nn.Conv2d(16, 8, 1),
    )  # fmt: skip
    target = create("ethos-u55-128")
    calls = []
    compile_ = type(target)._compile
    monkeypatch.setattr(
        type(target), "_compile", lambda self, n: calls.append(n) or compile_(self, n)
    )
    refused = target.refusals(trace(net.eval(), torch.zeros(1, 3, 18, 18)))
    assert [r.name for r in refused][-1] == "2"
    assert refused[0].name.startswith("1.unsupported")
    assert len(calls) == 1
