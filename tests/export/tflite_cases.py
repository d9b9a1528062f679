# SPDX-License-Identifier: Apache-2.0
"""One small program per operator kind and variant: ``CASES[name]() -> (program, steps)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tflite_programs import Builder

from chipfit.graph.op import ACTIVATIONS
from chipfit.graph.workload import Program

IMAGE = (1, 8, 10, 7)
#: Allowed error in quantisation steps of the output.
CASES: dict[str, tuple[Callable[[], Program], float]] = {}


def case(name: str, steps: float = 2.0) -> Callable[[Callable[[], Builder]], None]:
    def add(function: Callable[[], Builder]) -> None:
        CASES[name] = (lambda: function().build(), steps)

    return add


def conv_case(name: str, steps: float = 3.0, shape: Any = IMAGE, **attrs: Any) -> None:
    @case(name, steps)
    def _() -> Builder:
        net = Builder(shape)
        net.conv("x0", **attrs)
        return net


conv_case("conv", channels=16)
conv_case("conv_1x1_relu", channels=5, kernel=1, activation="relu")
conv_case("conv_relu6", channels=16, activation="relu6")
conv_case("conv_torch_stride2", channels=16, stride=2)
conv_case("conv_torch_stride2_even", channels=16, stride=2, shape=(1, 8, 12, 8))
conv_case("conv_same_stride2", channels=16, stride=2, shape=(1, 8, 12, 8), padding=(0, 1, 0, 1))
conv_case("conv_border_left", channels=16, padding=(2, 0, 1, 0))
conv_case("conv_k5_stride3", channels=6, kernel=5, stride=3, padding=(2, 1, 1, 2))
conv_case("conv_dilated", channels=6, dilation=2)
conv_case("conv_patchify", channels=6, kernel=4, stride=4, shape=(1, 3, 16, 16), padding=(0,) * 4)
conv_case("conv_grouped", channels=12, groups=4)
conv_case("conv_depthwise", channels=8, groups=8)
conv_case("conv_depthwise_stride2", channels=8, groups=8, stride=2, kernel=5)
conv_case("conv_depthwise_multiplier", channels=24, groups=8)
for _name in ACTIVATIONS[3:]:
    conv_case(f"conv_{_name}", steps=8.0 if _name == "tanh" else 4.0, channels=8,
              activation=_name)  # fmt: skip


def simple(
    name: str, kind: str, shape: Any, out: Any, steps: float = 2.0, others: Any = (),
    constants: Any = (), **attrs: Any,
) -> None:  # fmt: skip
    @case(name, steps)
    def _() -> Builder:
        net = Builder(shape, *others)
        names = [*net.inputs, *(net.constant(value) for value in constants)]
        net.op(kind, names, out, **attrs)
        return net


for _name in ACTIVATIONS[1:]:
    simple(f"activation_{_name}", "activation", IMAGE, IMAGE, 4.0, activation=_name)
simple("activation_relu_2d", "activation", (1, 9), (1, 9), activation="relu")
simple("leaky", "activation", IMAGE, IMAGE, activation="leaky_relu", slope=0.2)
simple("elu_half", "activation", IMAGE, IMAGE, 3.0, activation="elu", alpha=0.5)
simple("gelu_tanh", "activation", IMAGE, IMAGE, activation="gelu", approximate="tanh")

simple("linear", "linear", (1, 20), (1, 6), 3.0, bias=True)
simple("linear_relu", "linear", (1, 20), (1, 6), 3.0, bias=False, activation="relu")
simple("linear_hardsigmoid", "linear", (1, 20), (1, 6), 3.0, bias=True, activation="hardsigmoid")
simple("linear_3d", "linear", (1, 9, 20), (1, 9, 6), 3.0, bias=True)
simple("linear_4d", "linear", (1, 5, 9, 20), (1, 5, 9, 6), 3.0, bias=True)
simple("matmul", "matmul", (1, 2, 5, 6), (1, 2, 5, 3), 3.0, others=[(1, 2, 6, 3)])
simple("matmul_3d", "matmul", (1, 5, 6), (1, 5, 3), 3.0, others=[(1, 6, 3)])

for _kind in ("add", "sub", "mul"):
    simple(_kind, _kind, IMAGE, IMAGE, others=[IMAGE])
    simple(f"{_kind}_gate", _kind, IMAGE, IMAGE, others=[(1, 8, 1, 1)])
    simple(f"{_kind}_scalar", _kind, IMAGE, IMAGE, constants=[torch.tensor(0.7)])
    simple(f"{_kind}_silu", _kind, IMAGE, IMAGE, 4.0, others=[IMAGE], activation="silu")
    simple(f"{_kind}_channel", _kind, IMAGE, IMAGE, 3.0, constants=[torch.randn(8, 1, 1)])
simple("add_relu6", "add", IMAGE, IMAGE, others=[IMAGE], activation="relu6")
simple("add_3d_position", "add", (1, 9, 6), (1, 9, 6), constants=[torch.randn(1, 9, 6)])
for _kind in ("maximum", "minimum"):
    simple(_kind, _kind, IMAGE, IMAGE, others=[IMAGE])
    simple(f"{_kind}_scalar", _kind, IMAGE, IMAGE, constants=[torch.tensor(0.3)])
simple("clamp", "clamp", IMAGE, IMAGE, 4.0, low=-0.5, high=1.0)
simple("clamp_below", "clamp", IMAGE, IMAGE, 4.0, low=-0.25, high=None)
simple("clamp_above_zero", "clamp", IMAGE, IMAGE, 4.0, low=0.25, high=2.0)
simple("clamp_below_zero", "clamp", IMAGE, IMAGE, 4.0, low=-2.0, high=-0.5)
simple("abs", "unary", IMAGE, IMAGE, function="abs")
simple("exp", "unary", IMAGE, IMAGE, 3.0, function="exp")


@case("rsqrt", 9.0)
def _() -> Builder:
    net = Builder(IMAGE)
    net.op("mul", ["x0", "x0"], IMAGE)
    net.op("add", ["t0", net.constant(torch.tensor(1.0))], IMAGE)
    net.op("unary", "t1", IMAGE, function="rsqrt")
    return net


simple("div_scalar", "div", IMAGE, IMAGE, constants=[torch.tensor(3.0)])
simple("batch_norm", "batch_norm", IMAGE, IMAGE, 3.0)
simple("batch_norm_relu", "batch_norm", IMAGE, IMAGE, 3.0, activation="relu")
simple("batch_norm_2d", "batch_norm", (1, 8), (1, 8), 3.0)
simple("batch_norm_3d", "batch_norm", (1, 8, 5), (1, 8, 5), 3.0)


@case("div_positive", 4.0)
def _() -> Builder:
    net = Builder(IMAGE, IMAGE)
    net.op("activation", "x1", IMAGE, activation="relu")
    net.op("add", ["t0", net.constant(torch.tensor(1.0))], IMAGE)
    net.op("div", ["x0", "t1"], IMAGE)
    return net


simple("layer_norm", "layer_norm", (1, 9, 32), (1, 9, 32), 8.0, axes=(2,), eps=1e-5, affine=True)
simple("layer_norm_4d", "layer_norm", (1, 3, 4, 32), (1, 3, 4, 32), 8.0, axes=(3,), eps=1e-5,
       affine=False)  # fmt: skip
simple("layer_norm_image", "layer_norm", IMAGE, IMAGE, 8.0, axes=(1, 2, 3), eps=1e-5, affine=True)
simple("group_norm", "group_norm", IMAGE, IMAGE, 8.0, groups=2, eps=1e-5, affine=True)
simple("group_norm_1", "group_norm", IMAGE, IMAGE, 8.0, groups=1, eps=1e-5, affine=False)

simple("concat_channels", "concat", IMAGE, (1, 12, 10, 7), others=[(1, 4, 10, 7)], axis=1)
simple("concat_rows", "concat", IMAGE, (1, 8, 15, 7), others=[(1, 8, 5, 7)], axis=2)
simple("concat_relu", "concat", IMAGE, (1, 12, 10, 7), others=[(1, 4, 10, 7)], axis=1,
       activation="relu")  # fmt: skip
simple("concat_token", "concat", (1, 9, 6), (1, 10, 6), constants=[torch.randn(1, 1, 6)], axis=1)


@case("concat_requantised")
def _() -> Builder:
    net = Builder(IMAGE)
    net.op("activation", "x0", IMAGE, activation="sigmoid")
    net.op("concat", ["x0", "t0"], (1, 16, 10, 7), axis=1)
    return net


simple("slice_channels", "slice", IMAGE, (1, 4, 10, 7), axis=1, start=2, end=6, step=1)
simple("slice_rows", "slice", IMAGE, (1, 8, 5, 7), axis=2, start=1, end=10, step=2)
simple("slice_3d", "slice", (1, 9, 6), (1, 1, 6), axis=1, start=0, end=1, step=1)
_SIDES = ((0, 0), (0, 3), (1, 0), (2, 1))
simple("pad_zero", "pad", IMAGE, (1, 11, 11, 10), padding=_SIDES, value=0.0)
simple("pad_value", "pad", IMAGE, (1, 11, 11, 10), padding=_SIDES, value=0.5)
simple("max_pool", "max_pool2d", IMAGE, (1, 8, 5, 3), kernel=(2, 2), stride=(2, 2),
       padding=(0,) * 4)  # fmt: skip
simple("max_pool_torch", "max_pool2d", IMAGE, (1, 8, 5, 4), kernel=(3, 3), stride=(2, 2),
       padding=(1,) * 4)  # fmt: skip
simple("max_pool_same", "max_pool2d", IMAGE, IMAGE, kernel=(3, 3), stride=(1, 1),
       padding=(1,) * 4)  # fmt: skip


@case("max_pool_after_relu")
def _() -> Builder:
    net = Builder(IMAGE)
    net.op("activation", "x0", IMAGE, activation="relu")
    net.op("max_pool2d", "t0", (1, 8, 5, 4), kernel=(3, 3), stride=(2, 2), padding=(1,) * 4)
    return net


for _include in (True, False):
    simple(f"avg_pool_same_{_include}", "avg_pool2d", IMAGE, IMAGE, kernel=(3, 3), stride=(1, 1),
           padding=(1,) * 4, count_include_pad=_include)  # fmt: skip
    simple(f"avg_pool_torch_{_include}", "avg_pool2d", (1, 8, 10, 8), (1, 8, 5, 4), 10.0,
           kernel=(3, 3), stride=(2, 2), padding=(1,) * 4, count_include_pad=_include,
           activation="relu")  # fmt: skip
simple("avg_pool_plain", "avg_pool2d", IMAGE, (1, 8, 2, 1), kernel=(5, 7), stride=(5, 7),
       padding=(0,) * 4, count_include_pad=True)  # fmt: skip
simple("mean_image", "mean", IMAGE, (1, 8), axes=(2, 3), keepdim=False)
simple("mean_image_keep", "mean", IMAGE, (1, 8, 1, 1), axes=(2, 3), keepdim=True)
simple("mean_channels", "mean", IMAGE, (1, 1, 10, 7), axes=(1,), keepdim=True)
simple("mean_channels_drop", "mean", IMAGE, (1, 10, 7), axes=(1,), keepdim=False)
simple("mean_all", "mean", IMAGE, (1, 1, 1, 1), axes=(1, 2, 3), keepdim=True)
simple("mean_tokens", "mean", (1, 9, 6), (1, 6), axes=(1,), keepdim=False)
simple("amax_image", "amax", IMAGE, (1, 8, 1, 1), axes=(2, 3), keepdim=True)
simple("amax_channels", "amax", IMAGE, (1, 10, 7), axes=(1,), keepdim=False)
simple("resize_nearest", "resize", IMAGE, (1, 8, 20, 14), mode="nearest", align_corners=False)
simple("resize_bilinear", "resize", IMAGE, (1, 8, 20, 14), mode="bilinear", align_corners=False)
simple("resize_corners", "resize", IMAGE, (1, 8, 19, 13), mode="bilinear", align_corners=True)
simple("pixel_shuffle", "pixel_shuffle", (1, 12, 4, 3), (1, 3, 8, 6), factor=2)
simple("pixel_shuffle_1", "pixel_shuffle", (1, 9, 4, 3), (1, 1, 12, 9), factor=3)
simple("pixel_unshuffle", "pixel_unshuffle", (1, 3, 8, 6), (1, 12, 4, 3), factor=2)
simple("softmax", "softmax", (1, 10), (1, 10), axis=1)
simple("softmax_channels", "softmax", IMAGE, IMAGE, axis=1)
simple("softmax_rows", "softmax", IMAGE, IMAGE, axis=2)
simple("permute", "permute", IMAGE, (1, 10, 7, 8), dims=(0, 2, 3, 1))
simple("permute_hard", "permute", IMAGE, (1, 7, 8, 10), dims=(0, 3, 1, 2))
simple("permute_3d", "permute", (1, 9, 6), (1, 6, 9), dims=(0, 2, 1))
simple("permute_relu", "permute", IMAGE, (1, 7, 8, 10), dims=(0, 3, 1, 2), activation="relu")
simple("reshape_flatten", "reshape", IMAGE, (1, 560))
simple("reshape_tokens", "reshape", IMAGE, (1, 8, 70))
simple("reshape_split", "reshape", (1, 12, 4, 3), (1, 3, 4, 4, 3))
simple("reshape_pooled", "reshape", (1, 8, 1, 1), (1, 8))
simple("reshape_image", "reshape", (1, 24), (1, 2, 4, 3))


@case("flatten_linear", 3.0)
def _() -> Builder:
    net = Builder((1, 4, 3, 5))
    net.op("reshape", "x0", (1, 60))
    net.op("linear", "t0", (1, 7), bias=True)
    return net


@case("shuffle_after_conv", 5.0)
def _() -> Builder:
    net = Builder((1, 8, 4, 3))
    net.conv("x0", 12, activation="hardswish")
    net.op("pixel_shuffle", "t0", (1, 3, 8, 6), factor=2)
    return net


@case("shuffle_after_prelu", 3.0)
def _() -> Builder:
    net = Builder((1, 8, 4, 3))
    net.conv("x0", 12, activation="prelu")
    net.op("pixel_shuffle", "t0", (1, 3, 8, 6), factor=2)
    return net


@case("unshuffle_before_conv", 3.0)
def _() -> Builder:
    net = Builder((1, 3, 8, 6))
    net.op("pixel_unshuffle", "x0", (1, 12, 4, 3), factor=2)
    net.conv("t0", 8)
    return net


@case("channel_shuffle", 1.0)
def _() -> Builder:
    net = Builder((1, 12, 4, 3))
    net.op("reshape", "x0", (1, 3, 4, 4, 3))
    net.op("permute", "t0", (1, 4, 3, 4, 3), dims=(0, 2, 1, 3, 4))
    net.op("reshape", "t1", (1, 12, 4, 3))
    return net


@case("window_partition", 1.0)
def _() -> Builder:
    net = Builder((1, 5, 8, 6))
    net.op("reshape", "x0", (1, 5, 4, 2, 3, 2))
    net.op("permute", "t0", (1, 4, 3, 2, 2, 5), dims=(0, 2, 4, 3, 5, 1))
    net.op("reshape", "t1", (1, 12, 4, 5))
    return net


@case("prelu_3d")
def _() -> Builder:
    net = Builder((1, 6, 9))
    net.op("activation", "x0", (1, 6, 9), activation="prelu")
    return net
