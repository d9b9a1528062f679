# SPDX-License-Identifier: Apache-2.0
"""Every operator kind of ``WorkloadModule`` against plain PyTorch."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from chipfit.errors import BadInput, UnsupportedOp
from chipfit.graph.execute import WorkloadModule, synthetic_parameters
from chipfit.graph.op import ACTIVATIONS, Op, make_op
from chipfit.graph.workload import Node, Program, Workload

IMAGE = (1, 4, 8, 6)


def single(op: Op, seed: int = 0) -> Program:
    """Return a program of one node ``n`` that reads ``x0, x1, ...`` (constants ``c0, ...``)."""
    names = [f"c{i}" if i in op.constants else f"x{i}" for i in range(len(op.inputs))]
    shapes = dict(zip(names, op.inputs, strict=True)) | {"y": op.output}
    live = tuple(name for name in names if name[0] == "x")
    constants = frozenset(name for name in names if name[0] == "c")
    node = Node("n", op, tuple(names), "y")
    return synthetic_parameters(Workload((node,), live, ("y",), shapes, constants), seed)


def conv(**attrs: Any) -> Op:
    full = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1),
            "groups": 1, "bias": True} | attrs  # fmt: skip
    out = attrs.pop("out", (1, 8, 8, 6))
    full.pop("out", None)
    return make_op("conv2d", [IMAGE], out, **full)


POOL = {"kernel": (3, 2), "stride": (2, 1), "padding": (0, 1, 1, 0)}
CASES: list[tuple[Op, Any]] = [
    (conv(), lambda p, x: F.conv2d(x, p["weight"], p["bias"], padding=1)),
    (
        conv(bias=False, groups=4),
        lambda p, x: F.conv2d(x, p["weight"], padding=1, groups=4),
    ),
    (
        conv(stride=(2, 2), padding=(0, 1, 0, 1), out=(1, 8, 4, 3)),
        lambda p, x: F.conv2d(F.pad(x, (0, 1, 0, 1)), p["weight"], p["bias"], 2),
    ),
    (
        conv(dilation=(2, 1), kernel=(3, 1), padding=(2, 2, 0, 0)),
        lambda p, x: F.conv2d(x, p["weight"], p["bias"], 1, (2, 0), (2, 1)),
    ),
    (
        make_op("linear", [(1, 5, 6)], (1, 5, 3), bias=True),
        lambda p, x: x @ p["weight"].T + p["bias"],
    ),
    (make_op("matmul", [(1, 2, 5, 6), (1, 2, 6, 3)], (1, 2, 5, 3)), lambda p, x, y: x @ y),
    (make_op("add", [IMAGE, (1, 4, 1, 1)], IMAGE), lambda p, x, y: x + y),
    (make_op("sub", [IMAGE, IMAGE], IMAGE), lambda p, x, y: x - y),
    (make_op("mul", [IMAGE, (4, 1, 1)], IMAGE, constants=[1]), lambda p, x: x * p["c1"]),
    (make_op("div", [IMAGE, ()], IMAGE, constants=[1]), lambda p, x: x / p["c1"]),
    (
        make_op("batch_norm", [IMAGE], IMAGE),
        lambda p, x: F.batch_norm(x, torch.zeros(4), torch.ones(4), p["scale"], p["shift"], eps=0),
    ),
    (
        make_op("layer_norm", [(1, 5, 6)], (1, 5, 6), axes=(2,), eps=1e-3, affine=True),
        lambda p, x: F.layer_norm(x, (6,), p["weight"], p["bias"], 1e-3),
    ),
    (
        make_op("group_norm", [IMAGE], IMAGE, groups=2, eps=1e-3, affine=False),
        lambda p, x: F.group_norm(x, 2, eps=1e-3),
    ),
    (
        make_op("concat", [IMAGE, (1, 1, 8, 6)], (1, 5, 8, 6), axis=1),
        lambda p, x, y: torch.cat([x, y], 1),
    ),
    (
        make_op("concat", [(1, 1, 6), (1, 5, 6)], (1, 6, 6), axis=1, constants=[0]),
        lambda p, x: torch.cat([p["c0"].expand(len(x), 1, 6), x], 1),
    ),
    (
        make_op("slice", [IMAGE], (1, 4, 3, 6), axis=2, start=1, end=7, step=2),
        lambda p, x: x[:, :, 1:7:2],
    ),
    (
        make_op("pad", [IMAGE], (1, 5, 8, 8), padding=((0, 0), (0, 1), (0, 0), (2, 0)), value=0.5),
        lambda p, x: F.pad(x, (2, 0, 0, 0, 0, 1), value=0.5),
    ),
    (
        make_op("max_pool2d", [IMAGE], (1, 4, 4, 6), **POOL),
        lambda p, x: F.max_pool2d(F.pad(x, (1, 0, 0, 1), value=-1e9), (3, 2), (2, 1)),
    ),
    (
        make_op("max_pool2d", [IMAGE], (1, 4, 4, 3), kernel=(3, 3), stride=(2, 2),
                padding=(1, 1, 1, 1)),
        lambda p, x: F.max_pool2d(x, 3, 2, 1),
    ),
    (
        make_op("avg_pool2d", [IMAGE], (1, 4, 4, 3), kernel=(3, 3), stride=(2, 2),
                padding=(1, 1, 1, 1), count_include_pad=False),
        lambda p, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    (
        make_op("avg_pool2d", [IMAGE], (1, 4, 4, 6), count_include_pad=True, **POOL),
        lambda p, x: F.avg_pool2d(F.pad(x, (1, 0, 0, 1)), (3, 2), (2, 1)),
    ),
    (
        make_op("mean", [IMAGE], (1, 4), axes=(2, 3), keepdim=False),
        lambda p, x: x.mean((2, 3)),
    ),
    (
        make_op("amax", [IMAGE], (1, 4, 1, 6), axes=(2,), keepdim=True),
        lambda p, x: x.amax(2, keepdim=True),
    ),
    (
        make_op("resize", [IMAGE], (1, 4, 16, 12), mode="nearest", align_corners=False),
        lambda p, x: F.interpolate(x, scale_factor=2),
    ),
    (
        make_op("resize", [IMAGE], (1, 4, 15, 11), mode="bilinear", align_corners=True),
        lambda p, x: F.interpolate(x, (15, 11), mode="bilinear", align_corners=True),
    ),
    (
        make_op("pixel_shuffle", [IMAGE], (1, 1, 16, 12), factor=2),
        lambda p, x: F.pixel_shuffle(x, 2),
    ),
    (
        make_op("pixel_unshuffle", [IMAGE], (1, 16, 4, 3), factor=2),
        lambda p, x: F.pixel_unshuffle(x, 2),
    ),
    (make_op("softmax", [IMAGE], IMAGE, axis=1), lambda p, x: x.softmax(1)),
    (
        make_op("permute", [IMAGE], (1, 8, 6, 4), dims=(0, 2, 3, 1)),
        lambda p, x: x.permute(0, 2, 3, 1),
    ),
    (make_op("reshape", [IMAGE], (1, 192)), lambda p, x: x.flatten(1)),
]  # fmt: skip


@pytest.mark.parametrize(("op", "reference"), CASES, ids=[f"{c[0].kind}{i}" for i, c in
                                                          enumerate(CASES)])  # fmt: skip
@pytest.mark.parametrize("batch", [1, 3])
def test_kind_equals_torch(op: Op, reference: Any, batch: int) -> None:
    program = single(op)
    torch.manual_seed(0)
    x = [torch.randn(batch, *op.inputs[i][1:]) for i in range(len(op.inputs))
         if i not in op.constants]  # fmt: skip
    parameters = dict(program.parameters["n"])
    parameters |= {k: v["value"] for k, v in program.parameters.items() if k != "n"}
    result = WorkloadModule(program)(*x)
    torch.testing.assert_close(result, reference(parameters, *x), rtol=1e-5, atol=1e-5)
    if batch == 1:
        assert tuple(result.shape) == op.output


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_activation(name: str) -> None:
    reference = {
        "none": lambda t: t, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
        "prelu": lambda t: torch.where(t > 0, t, t * slope.reshape(1, -1, 1, 1)),
    }.get(name) or getattr(F, name)  # fmt: skip
    program = single(make_op("add", [IMAGE, IMAGE], IMAGE, activation=name))
    slope = program.parameters["n"].get("slope", torch.zeros(4))
    x, y = torch.randn(2, *IMAGE[1:]) * 4, torch.randn(2, *IMAGE[1:])
    torch.testing.assert_close(WorkloadModule(program)(x, y), reference(x + y))


def test_activation_attributes() -> None:
    x = torch.randn(1, 7)
    for name, attrs, reference in [
        ("leaky_relu", {"slope": 0.2}, F.leaky_relu(x, 0.2)),
        ("elu", {"alpha": 0.5}, F.elu(x, 0.5)),
        ("gelu", {"approximate": "tanh"}, F.gelu(x, approximate="tanh")),
    ]:
        op = make_op("activation", [(1, 7)], (1, 7), activation=name, **attrs)
        torch.testing.assert_close(WorkloadModule(single(op))(x), reference)


def test_observe_sees_every_tensor_and_the_value_before_a_fused_activation() -> None:
    seen: dict[str, torch.Tensor] = {}
    program = single(conv(out=(1, 8, 8, 6)))
    op = make_op("conv2d", [IMAGE], (1, 8, 8, 6), activation="hardswish",
                 **dict(program.workload.nodes[0].op.attrs))  # fmt: skip
    WorkloadModule(single(op), seen.__setitem__)(torch.randn(IMAGE))
    assert list(seen) == ["x0", "y:pre", "y"]
    torch.testing.assert_close(F.hardswish(seen["y:pre"]), seen["y"])


def test_double_and_wrong_inputs_and_unsupported() -> None:
    module = WorkloadModule(single(conv())).double()
    assert module(torch.randn(IMAGE).double()).dtype == torch.float64
    with pytest.raises(BadInput, match="2 inputs were given, the network has 1"):
        module(torch.zeros(IMAGE), torch.zeros(IMAGE))
    bad = single(make_op("unsupported", [IMAGE], IMAGE, aten="fft"))
    with pytest.raises(UnsupportedOp, match="n: fft"):
        WorkloadModule(bad)


def test_synthetic_parameters_depend_on_the_structure_only() -> None:
    torch.manual_seed(1)
    first = single(conv())
    torch.manual_seed(2)
    again = single(conv())
    weight = first.parameters["n"]["weight"]
    assert torch.equal(weight, again.parameters["n"]["weight"])
    assert not torch.equal(weight, single(conv(), seed=1).parameters["n"]["weight"])
    big = single(make_op("linear", [(1, 500)], (1, 500), bias=False)).parameters["n"]["weight"]
    assert big.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.02)


def test_onnx_export_keeps_the_batch_free() -> None:
    ort = pytest.importorskip("onnxruntime")
    nodes = (
        Node("c", conv(), ("x",), "a"),
        Node("r", make_op("reshape", [(1, 8, 8, 6)], (1, 8, 48)), ("a",), "b"),
        Node("p", make_op("permute", [(1, 8, 48)], (1, 48, 8), dims=(0, 2, 1)), ("b",), "d"),
        Node("k", make_op("concat", [(1, 1, 8), (1, 48, 8)], (1, 49, 8), axis=1, constants=[0]),
             ("token", "d"), "e"),
        Node("l", make_op("linear", [(1, 49, 8)], (1, 49, 3), bias=True), ("e",), "y"),
    )  # fmt: skip
    shapes = {"x": IMAGE, "token": (1, 1, 8)} | {n.output: n.op.output for n in nodes}
    workload = Workload(nodes, ("x",), ("y",), shapes, frozenset({"token"}))
    module = WorkloadModule(synthetic_parameters(workload)).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.randn(IMAGE),), buffer, dynamo=False, opset_version=18,
                          input_names=["x"], dynamic_axes={"x": {0: "batch"}})  # fmt: skip
    x = torch.randn(5, *IMAGE[1:])
    (result,) = ort.InferenceSession(buffer.getvalue()).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), module(x), rtol=1e-4, atol=1e-5)
