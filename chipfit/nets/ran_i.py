# SPDX-License-Identifier: Apache-2.0
"""RAN-i-T, S and B: ConvNeXt-T's stages, narrower and deeper.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562: depths and widths are
multiplied by one factor each and rounded to whole numbers, such as 303 channels. Kernels of CPU
runtimes work on groups of channels, so ``width_multiple`` rounds to multiples that they like.
"""

from __future__ import annotations

from chipfit.nets.convnext import CONVNEXT_T, ConvNeXt
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: Factors of the widths and of the depths.
RAN_I_T, RAN_I_S, RAN_I_B = (0.666, 1.65), (0.789, 1.65), (0.9105, 2.30)

_SOURCE = "Bhardwaj et al., 2022, arXiv 2208.08562"


@register_net(
    "ran_i_tiny",
    summary="RAN-i-T, 20.8 M parameters, 3.28 G MACs at 224 x 224",
    source=_SOURCE,
)
def ran_i_tiny(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    width_multiple: int = 1,
    drop_path: float = 0.1,
) -> ConvNeXt:
    """Build RAN-i-T; widths are rounded to multiples of ``width_multiple``, 1 as published."""
    stages = CONVNEXT_T.scaled(*RAN_I_T, width_multiple)
    return ConvNeXt(stages, num_classes, input_shape, drop_path)


@register_net(
    "ran_i_small",
    summary="RAN-i-S, 28.9 M parameters, 4.58 G MACs at 224 x 224",
    source=_SOURCE,
)
def ran_i_small(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    width_multiple: int = 1,
    drop_path: float = 0.2,
) -> ConvNeXt:
    """Build RAN-i-S; widths are rounded to multiples of ``width_multiple``, 1 as published."""
    stages = CONVNEXT_T.scaled(*RAN_I_S, width_multiple)
    return ConvNeXt(stages, num_classes, input_shape, drop_path)


@register_net(
    "ran_i_base",
    summary="RAN-i-B, 52.9 M parameters, 8.43 G MACs at 224 x 224",
    source=_SOURCE,
)
def ran_i_base(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    width_multiple: int = 1,
    drop_path: float = 0.4,
) -> ConvNeXt:
    """Build RAN-i-B; widths are rounded to multiples of ``width_multiple``, 1 as published."""
    stages = CONVNEXT_T.scaled(*RAN_I_B, width_multiple)
    return ConvNeXt(stages, num_classes, input_shape, drop_path)
