# SPDX-License-Identifier: Apache-2.0
"""A search space on the template of GPUNet, which PruNet searches in; our variant.

Wang et al., "GPUNet: Searching the Deployable Convolution Neural Networks for GPUs", CVPR 2022,
arXiv 2205.00841, choose kernel, expansion, width, activation and squeeze-excite stage by stage;
early stages are fused inverted residuals, later ones inverted residuals. Kierat et al., "Tiered
Pruning for Efficient Differentiable Inference-Aware Neural Architecture Search", 2022, arXiv
2209.11785, search around it. The skeleton's channels, layers and strides are those of the released
GPUNet-0; the candidates of each stage, and their choice layer by layer, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chipfit.nets.registry import register_net
from chipfit.nets.searchable import Candidate, SearchableNet, SearchStage, check_size

Shape4 = tuple[int, int, int, int]

KERNELS = (3, 5)
ACTIVATIONS = ("relu", "silu")
#: Block of the registry by its mark in the name of a candidate.
FAMILIES = {"fused": "fused_inverted_residual", "irb": "inverted_residual"}
#: Hidden channels of squeeze-excite, as a fraction.
SQUEEZE_EXCITE = 0.25


@dataclass(frozen=True)
class GPUNetStage:
    """Layers of one family; ``squeeze_excite`` says whether it may be taken.

    Args:
        channels: Output channels.
        repeats: Layers.
        stride: Of the first.
        family: Key of :data:`FAMILIES`.
        default: Of the skeleton.
        squeeze_excite: Whether candidates with squeeze-excite are there too.
    """

    channels: int
    repeats: int
    stride: int
    family: str
    default: str
    squeeze_excite: bool = False


EXPANSIONS = (2, 3, 5)
STAGES = (
    GPUNetStage(32, 2, 2, "fused", "fused_k3_e5_relu"),
    GPUNetStage(64, 3, 2, "fused", "fused_k3_e5_relu"),
    GPUNetStage(256, 3, 2, "irb", "irb_k3_e5_silu", True),
    GPUNetStage(704, 2, 2, "irb", "irb_k3_e5_relu_se", True),
)
SMALL_EXPANSIONS = (2, 3, 4)
#: For images of 28 to 32 pixels: two halvings with the stem's.
SMALL = (
    GPUNetStage(24, 2, 2, "fused", "fused_k3_e2_relu"),
    GPUNetStage(32, 2, 1, "irb", "irb_k3_e3_relu"),
    GPUNetStage(48, 2, 1, "irb", "irb_k3_e3_relu_se", True),
)


def gpunet_candidates(
    family: str, expansions: Sequence[int], squeeze_excite: bool
) -> tuple[Candidate, ...]:
    """Return the candidates of a stage, those that differ in expansion alone side by side.

    They are called ``irb_k3_e5_silu`` and, with squeeze-excite, ``irb_k3_e5_silu_se``.

    Args:
        family: Key of :data:`FAMILIES`.
        expansions: Hidden channels in units of the input channels.
        squeeze_excite: Whether to add those with squeeze-excite.
    """
    found = []
    for ratio in (0.0, SQUEEZE_EXCITE) if squeeze_excite else (0.0,):
        for act in ACTIVATIONS:
            for kernel in KERNELS:
                for expansion in expansions:
                    name = f"{family}_k{kernel}_e{expansion}_{act}{'_se' if ratio else ''}"
                    options = {"kernel": kernel, "expansion": expansion, "act": act}
                    if ratio:
                        options["squeeze_excite"] = ratio
                    found.append(Candidate(name, FAMILIES[family], options))
    return tuple(found)


@register_net(
    "gpunet_space",
    summary="a search space like GPUNet's: family, kernel, expansion, activation, squeeze-excite;"
    " size=imagenet on GPUNet-0's skeleton",
    source="after Wang et al., GPUNet, CVPR 2022, arXiv 2205.00841",
)
def gpunet_space(
    *, num_classes: int = 10, input_shape: Shape4 = (1, 1, 28, 28), size: str = "small"
) -> SearchableNet:
    """Build the skeleton, which carries the space.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; GPUNet-0 takes 320 pixels.
        size: ``small`` for images of 28 to 32 pixels, or ``imagenet``.

    Raises:
        BadInput: There is no such size, or the images are too small for it.
    """
    small = check_size("gpunet_space", size, input_shape)
    expansions = SMALL_EXPANSIONS if small else EXPANSIONS
    return SearchableNet(
        [
            SearchStage(
                s.channels,
                s.repeats,
                s.stride,
                gpunet_candidates(s.family, expansions, s.squeeze_excite),
                s.default,
            )
            for s in (SMALL if small else STAGES)
        ],
        stem=16 if small else 32,
        head=128 if small else 1280,
        num_classes=num_classes,
        input_shape=input_shape,
        act="relu",
        fixed=0 if small else 2,
    )
