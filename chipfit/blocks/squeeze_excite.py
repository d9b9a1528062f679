# SPDX-License-Identifier: Apache-2.0
"""``SqueezeExcite``: scale every channel by a gate that all channels' means decide.

Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507, section 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.errors import BadInput

#: Functions that turn the second convolution's outputs into factors between 0 and 1. The hard one
#: is what MobileNetV3 and GhostNet use: integer runtimes compute it without a table.
GATES: dict[str, type[nn.Module]] = {"hardsigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}


class SqueezeExcite(nn.Module):
    """Global mean, 1x1 convolution, ReLU, 1x1 convolution, gate; the input times the gate.

    Parameter names are those of timm (``conv_reduce``, ``conv_expand``).

    Args:
        channels: Input and output channels.
        reduced: Channels between the two convolutions.
        gate: Key of :data:`GATES`.

    Raises:
        BadInput: The gate is unknown, or ``reduced`` is not positive.
    """

    def __init__(self, channels: int, reduced: int, gate: str = "hardsigmoid") -> None:
        super().__init__()
        if gate not in GATES:
            raise BadInput(f"unknown gate {gate!r} of squeeze-excite", f"known: {', '.join(GATES)}")
        if reduced < 1:
            raise BadInput(f"squeeze-excite with {reduced} channels inside", "give at least one")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = nn.ReLU()
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        return x * self.gate(self.conv_expand(self.act1(self.conv_reduce(self.pool(x)))))


def reduced_channels(channels: int, ratio: float, multiple: int = 1) -> int:
    """Return the channels inside squeeze-excite: ``channels * ratio``, rounded.

    Args:
        channels: Of the tensor that is scaled.
        ratio: Fraction of them.
        multiple: The nearest multiple of it is taken, at least one and at least 90 % of the
            fraction, as in MobileNets.

    Raises:
        BadInput: ``ratio`` does not lie in ``(0, 1]``.
    """
    if not 0.0 < ratio <= 1.0:
        raise BadInput(f"squeeze_excite={ratio} must lie between 0 and 1")
    rounded = max(multiple, int(channels * ratio + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels * ratio else rounded
