# SPDX-License-Identifier: Apache-2.0
"""The exported order against the arena that tflite-micro really asks for."""

import numpy as np
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.export.tflite import TFLiteFile, calibrate, synthetic_ranges, to_tflite
from chipfit.export.tflite import file as file_module
from chipfit.export.tflite.order import memory_of
from chipfit.graph.capture import capture, trace
from chipfit.graph.memory_graph import peak_bytes
from chipfit.targets.cortex_m_arena import measure_arena

pytest.importorskip("tflite_micro")
pytest.importorskip("ethosu")

#: tflite-micro's planner puts the largest tensors first and leaves gaps: at most so much more.
OVERHEAD = 1.4


class Branches(nn.Module):
    """Three branches that widen; the forward pass makes all wide tensors before any narrow one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.wide = nn.ModuleList(nn.Conv2d(8, 32, 1) for _ in range(3))
        self.thin = nn.ModuleList(nn.Conv2d(32, 4, 1) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        wide = [conv(x) for conv in self.wide]
        return torch.cat([conv(y) for conv, y in zip(self.thin, wide, strict=True)], 1)


@pytest.fixture(scope="module")
def branches():
    torch.manual_seed(0)
    return capture(Branches().eval(), torch.zeros(1, 1, 16, 16))


def written(program, ranges):
    return to_tflite(program, ranges)


def in_given_order(program, ranges, monkeypatch):
    """Write the file as if no order were better than the program's."""
    with monkeypatch.context() as patch:
        patch.setattr(file_module, "reorder", memory_of)
        return written(program, ranges)


def test_the_arena_falls_with_the_peak_and_the_file_computes_the_same(
    branches, monkeypatch, tmp_path
):
    from chipfit.export.interpreter import TFLiteModel

    inputs = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    ranges = calibrate(branches, [inputs])
    files: dict[str, TFLiteFile] = {
        "given": in_given_order(branches, ranges, monkeypatch),
        "best": written(branches, ranges),
    }
    arenas = {name: measure_arena(file.data, name) for name, file in files.items()}
    # stem, and three wide tensors at once; then stem, one wide tensor and two narrow ones
    assert arenas["given"].head_bytes == peak_bytes(files["given"].memory) == 256 * (8 + 3 * 32)
    assert arenas["best"].head_bytes == peak_bytes(files["best"].memory) == 256 * (8 + 32 + 8)
    assert arenas["best"].tail_bytes == arenas["given"].tail_bytes
    outputs = []
    for name, file in files.items():
        file.save(tmp_path / f"{name}.tflite")
        outputs.append(TFLiteModel(tmp_path / f"{name}.tflite", threads=1)(inputs.numpy()))
    assert np.array_equal(*outputs)


def test_the_counted_peak_is_that_of_the_exported_order(branches):
    load = branches.workload
    assert load.peak_activation_elements() == 256 * (8 + 3 * 32)
    assert cf.target("analytic").cost(load).total["peak_sram_bytes"] == 256 * (8 + 32 + 8)
    assert peak_bytes(cf.target("analytic").memory_graph(load)) == 256 * (8 + 32 + 8)


@pytest.mark.parametrize("name", ["tiny_mobilenet_v2", "ghostnet"])
def test_the_arena_is_the_peak_and_a_stated_overhead_at_most(name):
    shape = (1, 1, 28, 28) if name.startswith("tiny") else (1, 3, 32, 32)
    with torch.device("meta"):
        net = cf.nets.create(name, num_classes=10, input_shape=shape)
    target = cf.target("cortex-m4")
    load = trace(net.eval(), torch.zeros(shape, device="meta"))
    peak, arena = peak_bytes(target.memory_graph(load)), target.arena(load)
    assert peak <= arena.head_bytes <= OVERHEAD * peak
    assert arena.total_bytes == arena.head_bytes + arena.tail_bytes


def test_a_chain_is_written_as_it_stands(monkeypatch):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3))
    program = capture(net.eval(), torch.zeros(1, 1, 12, 12))
    ranges = synthetic_ranges(program.workload)
    assert written(program, ranges).data == in_given_order(program, ranges, monkeypatch).data
