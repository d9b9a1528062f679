# SPDX-License-Identifier: Apache-2.0
"""ONNX export of modules and of workloads, and parity with PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_programs import Builder, batch
from torch import nn

from chipfit.errors import BadInput, ParityError, StorageError
from chipfit.export.interpreter import run_onnx
from chipfit.export.onnx import to_onnx, to_onnx_bytes
from chipfit.export.parity import compare, run_torch, verify_onnx, verify_tflite
from chipfit.export.tflite import calibrate, to_tflite
from chipfit.graph.execute import WorkloadModule

pytest.importorskip("onnxruntime")


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def images(count: int = 9) -> np.ndarray:
    result: np.ndarray = np.random.default_rng(0).normal(size=(count, 3, 10, 10)).astype("float32")
    return result


def test_any_batch_runs_and_equals_pytorch(tmp_path: Path) -> None:
    net = small().train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = to_onnx(net, torch.randn(2, 3, 10, 10), tmp_path / "a" / "net.onnx")
    assert net.training
    assert net[1].training
    parity = verify_onnx(path, net, images(), 1e-4)
    assert parity.top1_agreement == 1.0
    assert parity.max_abs_error < 1e-5


def test_names_and_free_batch() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(to_onnx_bytes(small(), torch.randn(1, 3, 10, 10)))
    onnx.checker.check_model(model)
    entry = model.graph.input[0]
    assert (entry.name, entry.type.tensor_type.shape.dim[0].dim_param) == ("input", "batch")
    assert model.graph.output[0].name == "output"
    assert model.opset_import[0].version == 18


def test_a_workload_exports_like_a_module() -> None:
    net = Builder((1, 3, 8, 8))
    x = net.conv("x0", 6, activation="silu", padding=(0, 1, 0, 1), stride=2)
    x = net.op("reshape", x, (1, 96))
    net.op("linear", x, (1, 4), bias=True)
    module = WorkloadModule(net.build())
    (inputs,) = batch(net.build(), 5)
    outputs = run_onnx(to_onnx_bytes(module, inputs[:1]), inputs.numpy())
    np.testing.assert_allclose(outputs, run_torch(module, inputs.numpy()), atol=1e-5)


def test_several_inputs_are_numbered() -> None:
    ort = pytest.importorskip("onnxruntime")
    net = Builder((1, 4), (1, 4))
    net.op("sub", ["x0", "x1"], (1, 4))
    a, b = batch(net.build(), 3)
    session = ort.InferenceSession(to_onnx_bytes(WorkloadModule(net.build()), (a, b)))
    (result,) = session.run(None, {"input": a.numpy(), "input_1": b.numpy()})
    np.testing.assert_array_equal(result, (a - b).numpy())


def test_compare_is_exact() -> None:
    reference = np.array([[0.0, 2.0], [3.0, 1.0], [5.0, 4.0], [0.0, 1.0]])
    outputs = np.array([[0.0, 1.5], [1.0, 3.0], [5.0, 4.0], [0.0, 1.0]])
    parity = compare(reference, outputs)
    assert parity.max_abs_error == 2.0
    assert parity.mean_abs_error == pytest.approx(4.5 / 8)
    assert parity.top1_agreement == 0.75
    assert parity.output_span == 5.0
    assert parity.relative_error == pytest.approx(4.5 / 40)
    assert parity.to_json()["top1_agreement"] == 0.75
    with pytest.raises(BadInput, match="do not compare"):
        compare(reference, outputs[:2])


def test_a_changed_network_fails_parity() -> None:
    net = small()
    data = to_onnx_bytes(net, torch.randn(1, 3, 10, 10))
    with torch.no_grad():
        net[6].bias += 0.5
    with pytest.raises(ParityError, match=r"differs from PyTorch by up to 0\.5"):
        verify_onnx(data, net, images())


def test_not_a_number_fails_parity() -> None:
    net = small()
    data = to_onnx_bytes(net, torch.randn(1, 3, 10, 10))
    bad = images()
    bad[0] = np.nan
    with pytest.raises(ParityError):
        verify_onnx(data, net, bad)


def test_int8_is_judged_by_agreement() -> None:
    pytest.importorskip("ai_edge_litert")
    net = Builder((1, 3, 10, 10))
    net.op("reshape", net.conv("x0", 4, activation="relu"), (1, 400))
    net.op("linear", "t1", (1, 4), bias=True)
    program = net.build()
    file = to_tflite(program, calibrate(program, [torch.from_numpy(images(64))]))
    module = WorkloadModule(program)
    parity = verify_tflite(file.data, module, images(64), 0.95)
    assert 0.95 <= parity.top1_agreement <= 1.0
    assert 0.0 < parity.relative_error < 0.02
    with torch.no_grad():
        module.state_of("n2")["weight"].neg_()
    with pytest.raises(ParityError, match=r"agrees with PyTorch on .*% of the images"):
        verify_tflite(file.data, module, images(64), 0.95)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        to_onnx(small(), torch.randn(1, 3, 10, 10), tmp_path / "file" / "net.onnx")
