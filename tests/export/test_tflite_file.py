# SPDX-License-Identifier: Apache-2.0
"""Whole networks as TFLite: interpreters, names, refusals, and Vela's placement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_programs import (
    Builder,
    float_outputs,
    quantised,
    run_litert,
    run_micro,
)

from chipfit.errors import UnsupportedOp
from chipfit.export.tflite import synthetic_ranges, tflite_refusals, to_tflite
from chipfit.graph.op import make_op
from chipfit.graph.workload import Node, Program, Workload

pytest.importorskip("ethosu.vela.tflite.Model")
pytest.importorskip("ai_edge_litert")


def mobile() -> Program:
    """A stem, an inverted residual with stride, one with a shortcut and a gate, and a head."""
    net = Builder((1, 3, 32, 32))
    x = net.conv("x0", 16, stride=2, activation="relu6")
    for stride, skip in ((2, False), (1, True)):
        block = x
        x = net.conv(x, 48, kernel=1, activation="hardswish")
        x = net.conv(x, 48, groups=48, stride=stride, activation="relu6")
        shape = net.shapes[x]
        gate = net.op("mean", x, (1, 48, 1, 1), axes=(2, 3), keepdim=True)
        gate = net.conv(gate, 12, kernel=1, activation="relu")
        gate = net.conv(gate, 48, kernel=1, activation="hardsigmoid")
        x = net.op("mul", [x, gate], shape)
        x = net.conv(x, 16, kernel=1)
        if skip:
            x = net.op("add", [block, x], net.shapes[x])
    x = net.op("mean", x, (1, 16), axes=(2, 3), keepdim=False)
    net.op("linear", x, (1, 10), bias=True)
    return net.build()


def attention() -> Program:
    """Tokens of an image through one attention block of two heads."""
    net = Builder((1, 3, 16, 16))
    x = net.conv("x0", 32, kernel=4, stride=4, padding=(0,) * 4)
    x = net.op("reshape", x, (1, 32, 16))
    x = net.op("permute", x, (1, 16, 32), dims=(0, 2, 1))
    y = net.op("layer_norm", x, (1, 16, 32), axes=(2,), eps=1e-5, affine=True)
    heads = []
    for _ in range(3):
        part = net.op("linear", y, (1, 16, 32), bias=True)
        part = net.op("reshape", part, (1, 16, 2, 16))
        heads.append(net.op("permute", part, (1, 2, 16, 16), dims=(0, 2, 1, 3)))
    q, k, v = heads
    k = net.op("permute", k, (1, 2, 16, 16), dims=(0, 1, 3, 2))
    scores = net.op("matmul", [q, k], (1, 2, 16, 16))
    scores = net.op("mul", [scores, net.constant(torch.tensor(0.25))], (1, 2, 16, 16))
    y = net.op("matmul", [net.op("softmax", scores, (1, 2, 16, 16), axis=3), v], (1, 2, 16, 16))
    y = net.op("permute", y, (1, 16, 2, 16), dims=(0, 2, 1, 3))
    y = net.op("linear", net.op("reshape", y, (1, 16, 32)), (1, 16, 32), bias=True)
    x = net.op("add", [x, y], (1, 16, 32))
    net.op("linear", net.op("mean", x, (1, 32), axes=(1,), keepdim=False), (1, 10), bias=True)
    return net.build()


@pytest.mark.parametrize(("make", "steps"), [(mobile, 2), (attention, 4)])
def test_interpreters_agree_and_follow_float(make: Callable[[], Program], steps: int) -> None:
    program = make()
    file, inputs = quantised(program, "percentile")
    outputs, step = run_litert(file.data, inputs)
    reference = float_outputs(program, inputs)
    assert np.abs(run_micro(file.data, inputs) - outputs).max() <= (steps + 0.01) * step
    assert np.abs(outputs - reference).mean() < 0.03 * np.ptp(reference)
    assert (outputs.argmax(1) == reference.argmax(1)).mean() >= 0.75


def vela_log(data: bytes, folder: Path, accelerator: str, capfd: pytest.CaptureFixture) -> str:
    from ethosu.vela import vela

    path = folder / "net.tflite"
    path.write_bytes(data)
    capfd.readouterr()
    vela.main([str(path), "--output-dir", str(folder), "--accelerator-config", accelerator,
               "--verbose-performance"])  # fmt: skip
    return str(capfd.readouterr().out)


@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u85-256"])
@pytest.mark.parametrize("make", [mobile, attention])
def test_vela_places_everything_on_the_npu(
    make: Callable[[], Program], accelerator: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    program = make()
    file = to_tflite(program, synthetic_ranges(program.workload))
    log = vela_log(file.data, tmp_path, accelerator, capfd)
    assert "CPU operators = 0 (0.0%)" in log


def test_every_operator_is_found_by_its_node() -> None:
    program = mobile()
    file, _ = quantised(program)
    for node in program.workload.nodes:
        assert node.output in file.tensors_of[node.name]
    assert file.tensors_of["n1"] == ["t1:pre", "t1"]
    named = [name for names in file.tensors_of.values() for name in names]
    assert len(named) == len(set(named))


def test_permutations_that_only_change_the_reading_cost_nothing() -> None:
    net = Builder((1, 8, 6, 6))
    x = net.conv("x0", 8, groups=8, kernel=7)
    y = net.op("permute", x, (1, 6, 6, 8), dims=(0, 2, 3, 1))
    y = net.op("linear", y, (1, 6, 6, 16), bias=True, activation="gelu")
    y = net.op("linear", y, (1, 6, 6, 8), bias=True)
    y = net.op("permute", y, (1, 8, 6, 6), dims=(0, 3, 1, 2))
    net.op("add", [x, y], (1, 8, 6, 6))
    file, inputs = quantised(net.build())
    assert [file.tensors_of[f"n{i}"] for i in range(6)] == [
        ["t0"], [], ["t2:pre", "t2"], ["t3"], [], ["t5"],
    ]  # fmt: skip
    outputs, step = run_litert(file.data, inputs)
    assert np.abs(outputs - float_outputs(net.build(), inputs)).max() <= 4 * step


def test_padding_is_an_operator_only_where_same_does_not_do() -> None:
    for padding, names in (((0, 1, 0, 1), ["t0"]), ((1, 1, 1, 1), ["t0:padded", "t0"])):
        net = Builder((1, 3, 8, 8))
        net.conv("x0", 4, stride=2, padding=padding)
        assert quantised(net.build())[0].tensors_of["n0"] == names


def test_flattened_images_are_not_moved_for_a_linear_layer() -> None:
    net = Builder((1, 4, 3, 5))
    net.op("reshape", "x0", (1, 60))
    net.op("linear", "t0", (1, 7), bias=True)
    assert quantised(net.build())[0].tensors_of == {"n0": ["t0"], "n1": ["t1"]}


def test_an_input_that_is_also_an_output_is_copied() -> None:
    net = Builder((1, 5))
    net.op("activation", "x0", (1, 5), activation="relu")
    program = net.build("x0", "t0")
    file, inputs = quantised_many(program)
    outputs, step = run_litert(file, inputs)
    assert np.abs(outputs - inputs[0].numpy()).max() <= step


def quantised_many(program: Program) -> tuple[bytes, list[torch.Tensor]]:
    inputs = [torch.randn(3, *program.workload.shapes[n][1:]) for n in program.workload.inputs]
    ranges = {name: (-4.0, 4.0) for name in program.workload.shapes}
    return to_tflite(program, ranges).data, inputs


def test_windows_of_a_network_can_be_written() -> None:
    program = mobile()
    ranges = synthetic_ranges(program.workload)
    for start in range(len(program.workload) - 3):
        part = program.window(start, start + 3)
        assert to_tflite(part, ranges).data[4:8] == b"TFL3"


def test_what_cannot_be_written_is_named() -> None:
    bad = make_op("unsupported", [(1, 4)], (1, 4), aten="cumsum")
    load = Workload((Node("block.odd", bad, ("x",), "y"),), ("x",), ("y",),
                    {"x": (1, 4), "y": (1, 4)})  # fmt: skip
    assert tflite_refusals(load) == [
        ("block.odd", "unsupported", "chipfit does not understand cumsum")
    ]
    with pytest.raises(UnsupportedOp, match=r"block\.odd: unsupported \(.*cumsum\)"):
        to_tflite(Program(load, {}), {})
    net = Builder((1, 4, 6, 6))
    net.conv("x0", 4, activation="gelu")
    assert tflite_refusals(net.build().workload) == []
    assert [r[0] for r in tflite_refusals(net.build().workload, micro=True)] == ["n0"]


def test_saving_replaces_the_whole_file(tmp_path: Path) -> None:
    file, _ = quantised(mobile())
    path = tmp_path / "made" / "net.tflite"
    file.save(path)
    file.save(path)
    assert path.read_bytes() == file.data
    assert [p.name for p in path.parent.iterdir()] == ["net.tflite"]
