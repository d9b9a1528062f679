# SPDX-License-Identifier: Apache-2.0
"""``ConvBNAct``: convolution, batch norm and activation, the unit that devices fuse into one."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput

#: Activation modules by the name that an :class:`~chipfit.graph.op.Op` uses for them.
ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}


def activation_module(name: str) -> nn.Module:
    """Return a new activation module.

    Raises:
        BadInput: ``name`` is not a key of :data:`ACTIVATION_MODULES`.
    """
    if name not in ACTIVATION_MODULES:
        raise BadInput(
            f"unknown activation {name!r} for a block", f"known: {', '.join(ACTIVATION_MODULES)}"
        )
    return ACTIVATION_MODULES[name]()


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return zeros ``(before, after)`` along an axis, so that ``ceil(size / stride)`` come out.

    This is the padding that TFLite calls SAME: the odd zero comes after, so kernels of Ethos-U and
    CPU runtimes need no separate padding operator.

    Args:
        size: Input pixels along the axis.
        kernel: Kernel size.
        stride: Stride.
    """
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


@register_block(
    "conv_bn_act",
    summary="convolution, dense or in groups, batch norm and activation",
    source="Ioffe and Szegedy, ICML 2015, arXiv 1502.03167",
)
class ConvBNAct(nn.Sequential):
    """Convolution without bias, batch norm and, unless ``act`` is ``"none"``, an activation.

    Children are ``0`` (convolution), ``1`` (batch norm), ``2`` (activation), as torchvision names
    them; where the padding is asymmetric a ``pad`` child comes first and holds no parameters.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Square kernel size.
        stride: Stride of both axes.
        groups: Convolution groups; ``in_channels`` makes it depthwise.
        act: Key of :data:`ACTIVATION_MODULES` or ``"none"``.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.
        eps: Of the batch norm.
        momentum: Of the batch norm, PyTorch's convention (weight of the new batch).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        act: str = "relu6",
        same_size: tuple[int, int] | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        children: OrderedDict[str, nn.Module] = OrderedDict()
        padding = (kernel // 2, kernel // 2)
        if same_size is not None:
            (top, bottom), (left, right) = (same_padding(s, kernel, stride) for s in same_size)
            if top == bottom and left == right:
                padding = (top, left)
            else:
                padding = (0, 0)
                children["pad"] = nn.ZeroPad2d((left, right, top, bottom))
        children["0"] = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False
        )
        children["1"] = nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum)
        if act != "none":
            children["2"] = activation_module(act)
        super().__init__(children)
