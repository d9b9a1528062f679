# SPDX-License-Identifier: Apache-2.0
"""Running exported files on batches of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_programs import Builder, batch, float_outputs, quantised, run_litert

from chipfit.errors import BadInput
from chipfit.export.interpreter import TFLiteModel, run_onnx, run_tflite
from chipfit.export.onnx import to_onnx_bytes
from chipfit.export.tflite import calibrate, to_tflite
from chipfit.graph.execute import WorkloadModule

pytest.importorskip("ai_edge_litert")


def net() -> Builder:
    builder = Builder((1, 3, 12, 12))
    x = builder.conv("x0", 8, stride=2, activation="relu")
    x = builder.op("reshape", x, (1, 288))
    builder.op("linear", x, (1, 5), bias=True)
    return builder


def test_batches_equal_single_images(tmp_path: Path) -> None:
    program = net().build()
    (images,) = batch(program, 300)
    file = to_tflite(program, calibrate(program, [images]))
    path = tmp_path / "net.tflite"
    file.save(path)
    outputs = run_tflite(path, images.numpy())
    single, step = run_litert(file.data, [images[:20]])
    assert outputs.shape == (300, 5)
    assert np.abs(outputs[:20] - single).max() <= 1.01 * step
    assert np.abs(outputs - float_outputs(program, [images])).max() <= 4 * step


def test_an_open_file_takes_calls_of_any_size() -> None:
    program = net().build()
    (images,) = batch(program, 40)
    file = to_tflite(program, calibrate(program, [images]))
    model = TFLiteModel(file.data, threads=1)
    assert model.image_shape == (3, 12, 12)
    whole = run_tflite(file.data, images.numpy())
    step = run_litert(file.data, [images[:1]])[1]
    for start, stop in ((0, 1), (1, 8), (8, 40), (30, 33)):
        part = model(images[start:stop].numpy())
        assert np.abs(part - whole[start:stop]).max() <= 1.01 * step


def test_a_file_with_a_fixed_batch_is_run_image_by_image() -> None:
    builder = Builder((1, 4, 6))
    token = builder.constant(torch.randn(1, 1, 6))
    builder.op("concat", [token, "x0"], (1, 5, 6), axis=1)
    builder.op("linear", "t0", (1, 5, 3), bias=True)
    program = builder.build()
    file, inputs = quantised(program)
    outputs = run_tflite(file.data, inputs[0].numpy())
    _, step = run_litert(file.data, inputs)
    assert outputs.shape == (4, 5, 3)
    assert np.abs(outputs - float_outputs(program, inputs)).max() <= 3 * step


def test_images_come_back_as_nchw() -> None:
    builder = Builder((1, 3, 6, 4))
    builder.conv("x0", 12)
    builder.op("pixel_shuffle", "t0", (1, 3, 12, 8), factor=2)
    program = builder.build()
    file, inputs = quantised(program)
    outputs = run_tflite(file.data, inputs[0].numpy())
    assert outputs.shape == (4, 3, 12, 8)
    step = run_litert(file.data, inputs)[1]
    assert np.abs(outputs - float_outputs(program, inputs)).max() <= 3 * step


def test_wrong_input_and_wrong_files_are_named(tmp_path: Path) -> None:
    file, inputs = quantised(net().build())
    with pytest.raises(BadInput, match=r"images of \(3, 12, 12\), these are \(3, 8, 8\)"):
        run_tflite(file.data, np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(BadInput, match="no images"):
        run_tflite(file.data, inputs[0].numpy()[:0])
    with pytest.raises(BadInput, match="not a TFLite file"):
        run_tflite(b"nonsense" * 20, inputs[0].numpy())
    with pytest.raises(BadInput, match="cannot read"):
        run_tflite(tmp_path / "absent.tflite", inputs[0].numpy())
    pytest.importorskip("onnxruntime")
    with pytest.raises(BadInput, match="not an ONNX file"):
        run_onnx(b"nonsense", inputs[0].numpy())
    data = to_onnx_bytes(WorkloadModule(net().build()), inputs[0])
    with pytest.raises(BadInput, match="does not take such images"):
        run_onnx(data, np.zeros((2, 1, 12, 12), np.float32))
