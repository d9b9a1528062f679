# SPDX-License-Identifier: Apache-2.0
"""FBNet's search space: 22 layers of 9 candidates, and a small relative.

Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
Search", CVPR 2019, arXiv 1812.03443, section 3.1, tables 1 and 2. The paper counts 9 candidates in
every layer, about 1e21; dropping a layer is none where the shape changes, which leaves
``8**6 * 9**16`` = 4.9e20. Its head has 1504 channels in FBNet-A and 1984 in B and C.
"""

from __future__ import annotations

from chipfit.nets.registry import register_net
from chipfit.nets.searchable import Candidate, SearchableNet, SearchStage, check_size

Shape4 = tuple[int, int, int, int]


def _candidate(name: str, kernel: int, expansion: int, groups: int = 1) -> Candidate:
    options = {"kernel": kernel, "expansion": expansion, "groups": groups, "act": "relu"}
    return Candidate(name, "grouped_inverted_residual", options)


#: All but ``skip``, in the paper's order.
CANDIDATES = (
    _candidate("k3_e1", 3, 1),
    _candidate("k3_e1_g2", 3, 1, 2),
    _candidate("k3_e3", 3, 3),
    _candidate("k3_e6", 3, 6),
    _candidate("k5_e1", 5, 1),
    _candidate("k5_e1_g2", 5, 1, 2),
    _candidate("k5_e3", 5, 3),
    _candidate("k5_e6", 5, 6),
)
#: Channels, layers, stride, default.
STAGES = (
    (16, 1, 1, "k3_e1"),
    (24, 4, 2, "k3_e6"),
    (32, 4, 2, "k3_e6"),
    (64, 4, 2, "k3_e6"),
    (112, 4, 1, "k3_e6"),
    (184, 4, 2, "k3_e6"),
    (352, 1, 1, "k3_e6"),
)
#: For images of 28 to 32 pixels: two halvings with the stem's.
SMALL = (
    (16, 1, 1, "k3_e1"),
    (24, 3, 2, "k3_e3"),
    (40, 3, 1, "k3_e3"),
)


@register_net(
    "fbnet_space",
    summary="FBNet's search space: 9 candidates a layer; size=imagenet as published, 22 layers",
    source="Wu et al., FBNet, CVPR 2019, arXiv 1812.03443",
)
def fbnet_space(
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
    small = check_size("fbnet_space", size, input_shape)
    return SearchableNet(
        [SearchStage(c, n, s, CANDIDATES, default) for c, n, s, default in _table(small)],
        stem=16,
        head=128 if small else 1984,
        num_classes=num_classes,
        input_shape=input_shape,
        act="relu",
        dropout=0.0 if small else 0.2,
    )


def _table(small: bool) -> tuple[tuple[int, int, int, str], ...]:
    return SMALL if small else STAGES
