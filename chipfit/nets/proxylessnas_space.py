# SPDX-License-Identifier: Apache-2.0
"""ProxylessNAS's ImageNet search space: 21 layers of 7 candidates, and a small relative.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR
2019, arXiv 1812.00332, section 4.2: MobileNetV2 with kernels 3, 5, 7 and expansions 3, 6. Stem and
first block are fixed; a layer that keeps the shape may be dropped (``skip``), the rest of it being
its shortcut.
"""

from __future__ import annotations

from chipfit.nets.registry import register_net
from chipfit.nets.searchable import SearchableNet, SearchStage, check_size, inverted_residuals

Shape4 = tuple[int, int, int, int]

KERNELS, EXPANSIONS = (3, 5, 7), (3, 6)
#: Channels of the fixed first block of expansion 1.
FIRST = 16
#: Channels, layers, stride.
STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
#: For images of 28 to 32 pixels: two halvings with the stem's.
SMALL = ((24, 3, 2), (40, 3, 1), (48, 1, 1))


@register_net(
    "proxylessnas_space",
    summary="ProxylessNAS's search space: kernels 3, 5, 7, expansions 3, 6, skip; size=imagenet as"
    " published, 21 layers",
    source="Cai et al., ProxylessNAS, ICLR 2019, arXiv 1812.00332",
)
def proxylessnas_space(
    *, num_classes: int = 10, input_shape: Shape4 = (1, 1, 28, 28), size: str = "small"
) -> SearchableNet:
    """Build the skeleton, which carries the space.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        size: ``small`` for images of 28 to 32 pixels, or ``imagenet`` as published.

    Raises:
        BadInput: There is no such size, or the images are too small for it.
    """
    small = check_size("proxylessnas_space", size, input_shape)
    first = inverted_residuals((3,), (1,), "relu6")
    candidates = inverted_residuals(KERNELS, EXPANSIONS, "relu6")
    default = "k3_e3" if small else "k3_e6"
    return SearchableNet(
        [
            SearchStage(FIRST, 1, 1, first, "k3_e1", skip=False),
            *(
                SearchStage(c, n, s, candidates, default)
                for c, n, s in (SMALL if small else STAGES)
            ),
        ],
        stem=16 if small else 32,
        head=128 if small else 1280,
        num_classes=num_classes,
        input_shape=input_shape,
        act="relu6",
    )
