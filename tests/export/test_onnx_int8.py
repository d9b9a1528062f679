# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import nn

from chipfit.errors import BadInput, ParityError, UnknownName, UnsupportedOp
from chipfit.export.interpreter import run_onnx
from chipfit.export.onnx import to_onnx_bytes
from chipfit.export.onnx_gelu import fuse_gelu
from chipfit.export.onnx_int8 import (
    VARIANTS,
    Int8Scheme,
    is_quantised,
    quantise,
    random_feed,
    scheme_for_this_cpu,
)
from chipfit.export.onnx_model import OnnxModel
from chipfit.export.parity import verify_int8_onnx, verify_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.GELU(),
        nn.Conv2d(16, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def data(net):
    return to_onnx_bytes(net, torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_files_compute_the_network(net, data, images, variant):
    feeds = [{"input": images[i : i + 8]} for i in range(0, 32, 8)]
    # 7 bits never saturate, whatever the processor has.
    content = quantise(data, feeds, Int8Scheme(variant, reduce_range=variant == "u8s8"))
    assert is_quantised(content)
    assert not is_quantised(data)
    assert len(content) < len(data) * 1.5
    wanted, found = run_onnx(data, images), run_onnx(content, images)
    error = np.sqrt(np.mean((wanted - found) ** 2)) / wanted.std()
    assert 0 < error < 0.15
    assert verify_int8_onnx(content, net, images, 0.8).top1_agreement >= 0.8


def test_another_network_is_no_parity(data, images):
    torch.manual_seed(5)
    other = nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    content = quantise(data, [random_feed(data)], scheme_for_this_cpu())
    with pytest.raises(ParityError, match="agrees with PyTorch"):
        verify_int8_onnx(content, other, images, 0.8)


def test_seven_bits_are_seven_bits(data):
    for reduce_range, limit in ((True, 64), (False, 127)):
        model = onnx.load_from_string(
            quantise(data, [random_feed(data)], Int8Scheme("u8s8", reduce_range))
        )
        weights = [
            onnx.numpy_helper.to_array(t)
            for t in model.graph.initializer
            if t.data_type == onnx.TensorProto.INT8 and len(t.dims) >= 2
        ]
        assert len(weights) == 4
        assert max(int(np.abs(w.astype(int)).max()) for w in weights) == limit


def test_feeds_set_the_ranges(data, images):
    narrow = quantise(data, [{"input": images * 0.01}], Int8Scheme())
    wide = quantise(data, [{"input": images}], Int8Scheme())
    assert narrow != wide
    wanted = run_onnx(data, images)
    error = [np.abs(run_onnx(c, images) - wanted).mean() for c in (narrow, wide)]
    assert error[0] > 3 * error[1]


def test_what_cannot_be_quantised(data):
    with pytest.raises(BadInput, match="at least one"):
        quantise(data, [], Int8Scheme())
    with pytest.raises(BadInput, match="not finite"):
        quantise(data, [{"input": np.full((1, 3, 16, 16), np.nan, np.float32)}], Int8Scheme())
    with pytest.raises(UnsupportedOp, match="rejects"):
        quantise(b"nonsense", [], Int8Scheme())
    with pytest.raises(BadInput, match="not an ONNX model"):
        is_quantised(b"nonsense")
    with pytest.raises(UnknownName, match="u8s8"):
        Int8Scheme("u8s9")


def test_gelu_is_put_together_again(net, data, images, tmp_path):
    model = onnx.load_from_string(data)
    kinds = [node.op_type for node in model.graph.node]
    assert "Erf" in kinds
    # Constants are initialisers once the runtime has folded them.
    from chipfit.export.onnx_int8 import _simplified

    folded = _simplified(data, tmp_path)
    kinds = [node.op_type for node in folded.graph.node]
    assert kinds.count("Gelu") == 1
    assert not {"Erf", "Div"} & set(kinds)
    onnx.checker.check_model(folded)
    verify_onnx(folded.SerializeToString(), net, images)
    assert fuse_gelu(folded) == 0


def test_a_chain_that_is_no_gelu_stays(images):
    class NoGelu(nn.Module):
        def forward(self, x):
            return x * (1.0 + torch.erf(x / 1.5)) * 0.5

    data = to_onnx_bytes(NoGelu(), torch.zeros(1, 3, 16, 16))
    model = onnx.load_from_string(data)
    assert fuse_gelu(model) == 0
    assert [n.op_type for n in model.graph.node].count("Erf") == 1


def test_a_model_is_opened_once_for_many_images(net, data, images, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    model = OnnxModel(path, threads=1)
    many = np.concatenate([images] * 3)
    assert model(many) == pytest.approx(run_onnx(data, many), abs=1e-4)
    with pytest.raises(BadInput, match="no images"):
        model(many[:0])
    path.write_bytes(b"nonsense")
    with pytest.raises(BadInput, match="cannot|can be run|not an ONNX"):
        OnnxModel(path)
