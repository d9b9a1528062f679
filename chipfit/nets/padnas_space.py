# SPDX-License-Identifier: Apache-2.0
"""PAD-NAS's basic and large search spaces: 22 layers of 7 or 19 candidates, and small relatives.

Xia et al., "PAD-NAS: Progressive Automatic Design of Search Space", WACV 2022: the basic space is
ProxylessNAS's with a choice of kernel in the first block, ``3 * 6**6 * 7**15`` = 6.64e17 networks;
the large one has expansions 1 to 6, ``3 * 18**6 * 19**15`` = 1.55e27. The first layer of a stage
cannot be dropped.
"""

from __future__ import annotations

from chipfit.nets.registry import register_net
from chipfit.nets.searchable import SearchableNet, SearchStage, check_size, inverted_residuals

Shape4 = tuple[int, int, int, int]
Rows = tuple[tuple[int, int, int], ...]

KERNELS = (3, 5, 7)
BASIC_EXPANSIONS, LARGE_EXPANSIONS = (3, 6), (1, 2, 3, 4, 5, 6)
#: Channels of the first block, whose expansion is 1.
FIRST = 16
_REST: Rows = ((40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
#: Channels, layers, stride.
BASIC: Rows = ((32, 4, 2), *_REST)
LARGE: Rows = ((24, 4, 2), *_REST)
#: For images of 28 to 32 pixels: two halvings with the stem's.
SMALL: Rows = ((24, 3, 2), (40, 3, 1))
_SOURCE = "Xia et al., PAD-NAS, WACV 2022"


def _build(
    name: str,
    size: str,
    expansions: tuple[int, ...],
    published: Rows,
    stem: int,
    num_classes: int,
    input_shape: Shape4,
) -> SearchableNet:
    small = check_size(name, size, input_shape)
    first = inverted_residuals(KERNELS, (1,), "relu6")
    candidates = inverted_residuals(KERNELS, expansions, "relu6")
    default = "k3_e3" if small else "k3_e6"
    return SearchableNet(
        [
            SearchStage(FIRST, 1, 1, first, "k3_e1", skip=False),
            *(
                SearchStage(c, n, s, candidates, default)
                for c, n, s in (SMALL if small else published)
            ),
        ],
        stem=16 if small else stem,
        head=128 if small else 1280,
        num_classes=num_classes,
        input_shape=input_shape,
        act="relu6",
    )


@register_net(
    "padnas_basic_space",
    summary="PAD-NAS's basic search space: kernels 3, 5, 7, expansions 3, 6, skip; size=imagenet as"
    " published, 22 layers",
    source=_SOURCE,
)
def padnas_basic_space(
    *, num_classes: int = 10, input_shape: Shape4 = (1, 1, 28, 28), size: str = "small"
) -> SearchableNet:
    """Build the skeleton of the basic space, which it carries.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        size: ``small`` for images of 28 to 32 pixels, or ``imagenet`` as published.

    Raises:
        BadInput: There is no such size, or the images are too small for it.
    """
    return _build("padnas_basic_space", size, BASIC_EXPANSIONS, BASIC, 32, num_classes, input_shape)


@register_net(
    "padnas_large_space",
    summary="PAD-NAS's large search space: kernels 3, 5, 7, expansions 1 to 6, skip; size=imagenet"
    " as published, 22 layers",
    source=_SOURCE,
)
def padnas_large_space(
    *, num_classes: int = 10, input_shape: Shape4 = (1, 1, 28, 28), size: str = "small"
) -> SearchableNet:
    """Build the skeleton of the large space, which it carries.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        size: ``small`` for images of 28 to 32 pixels, or ``imagenet`` as published.

    Raises:
        BadInput: There is no such size, or the images are too small for it.
    """
    return _build("padnas_large_space", size, LARGE_EXPANSIONS, LARGE, 16, num_classes, input_shape)
