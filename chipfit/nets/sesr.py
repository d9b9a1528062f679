# SPDX-License-Identifier: Apache-2.0
"""SESR: super-resolution of the luminance, trained with collapsible linear blocks.

Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super Resolution", MLSys 2022,
arXiv 2103.09404, section 3 and table 1. Without biases and slopes a network has
``P = 25 f + 9 m f^2 + 25 f s^2`` parameters and ``P H W`` MACs for an image of ``H x W`` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from chipfit.blocks.collapsible_conv import CollapsibleConv
from chipfit.blocks.deploy import deploy as deploy_blocks
from chipfit.errors import BadInput
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: Larger images by these factors.
SCALES = (2, 4)
ACTIVATIONS = ("prelu", "relu")
#: Slopes start between 0, where the authors start them, and this.
LARGEST_SLOPE = 0.05


@dataclass(frozen=True)
class SesrTable:
    """One network of the family.

    Args:
        features: Channels inside the network.
        blocks: 3x3 convolutions.
        expansion: Channels between the factors of a block while training.
    """

    features: int
    blocks: int
    expansion: int = 256


SESR = {
    "m3": SesrTable(16, 3),
    "m5": SesrTable(16, 5),
    "m7": SesrTable(16, 7),
    "m11": SesrTable(16, 11, 64),
    "xl": SesrTable(32, 11, 64),
}


@dataclass(frozen=True)
class SesrForm:
    """What the networks of one table can differ in.

    Args:
        scale: Factor of height and width, 2 or 4.
        activation: Behind every 3x3 convolution: ``prelu``, or ``relu`` as the paper quantises.
        deploy: Plain convolutions; otherwise collapsible blocks to train.
        expanded: Execute the factors of the blocks instead of the convolutions that they equal.
    """

    scale: int = 2
    activation: str = "prelu"
    deploy: bool = True
    expanded: bool = False

    def check(self, input_shape: Shape4) -> None:
        """Raise where there is no such network.

        Raises:
            BadInput: A field cannot be used, or the images have several channels.
        """
        if self.scale not in SCALES:
            raise BadInput(f"scale={self.scale} of SESR", "choose 2 or 4")
        if self.activation not in ACTIVATIONS:
            raise BadInput(f"activation={self.activation!r} of SESR", "choose prelu or relu")
        if self.deploy and self.expanded:
            raise BadInput("plain convolutions have no expanded form", "give deploy=false, too")
        if input_shape[1] != 1:
            raise BadInput(
                f"SESR takes the luminance alone, not {input_shape[1]} channels",
                "give input_shape (1, 1, H, W); colour is enlarged by interpolation",
            )


class Sesr(nn.Module):
    """5x5 convolution, 3x3 convolutions with activations, 5x5 convolution, depth to space.

    The first features are added before the last convolution, the image behind it; a factor of 4
    takes two steps of depth to space. Shortcuts around the 3x3 convolutions are part of their
    kernels. Outputs are clipped to ``[0, 1]``, also while training, as the authors' code does.

    Args:
        table: Sizes.
        form: Scale, activation and whether blocks are collapsible.
        input_shape: ``(1, 1, H, W)``.

    Raises:
        BadInput: There is no such network.
    """

    def __init__(self, table: SesrTable, form: SesrForm, input_shape: Shape4) -> None:
        super().__init__()
        form.check(input_shape)
        self.input_shape, self.table, self.form = input_shape, table, form
        width = table.features
        self.first = self._conv(1, width, 5)
        self.blocks = nn.Sequential()
        for _ in range(table.blocks):
            self.blocks.append(self._conv(width, width, 3))
            act = nn.PReLU(width) if form.activation == "prelu" else nn.ReLU()
            if isinstance(act, nn.PReLU):
                # Compilers turn equal slopes into a cheaper function than a trained network has.
                nn.init.uniform_(act.weight, 0.0, LARGEST_SLOPE)
            self.blocks.append(act)
        self.last = self._conv(width, form.scale**2, 5)

    def _conv(self, into: int, out: int, kernel: int) -> nn.Module:
        block = CollapsibleConv(
            into, out, kernel=kernel, expansion=self.table.expansion, residual=kernel == 3,
            expanded=self.form.expanded,
        )  # fmt: skip
        return block.collapsed() if self.form.deploy else block

    def forward(self, x: Tensor) -> Tensor:
        """Map luminance ``(N, 1, H, W)`` in ``[0, 1]`` to ``(N, 1, scale H, scale W)``."""
        first = self.first(x - 0.5)
        y = self.last(self.blocks(first) + first) + x
        for _ in range(self.form.scale // 2):
            y = nn.functional.pixel_shuffle(y, 2)
        return y.clamp(0.0, 1.0)

    def deployed(self) -> Sesr:
        """Return a copy with plain convolutions, which computes the same."""
        form = replace(self.form, deploy=True, expanded=False)
        net = Sesr(self.table, form, self.input_shape)
        for name, part in self.named_children():
            setattr(net, name, deploy_blocks(part))
        return net.train(self.training)

    def initialise_from(self, other: Sesr) -> None:
        """Take over all weights but the last convolution's, as for a factor of 4 from one of 2.

        That is how the paper trains its networks for a factor of 4 (section 4).

        Raises:
            BadInput: ``other`` is another network of the family, or has another form.
        """
        same = replace(other.form, scale=self.form.scale, expanded=self.form.expanded)
        if other.table != self.table or same != self.form:
            raise BadInput(
                f"{other.table}, {other.form} cannot start {self.table}, {self.form}",
                "all but the scale must agree",
            )
        state = other.state_dict()
        taken = {key: value for key, value in state.items() if not key.startswith("last.")}
        with torch.no_grad():
            missing, unexpected = self.load_state_dict(taken, strict=False)
        if unexpected or any(not key.startswith("last.") for key in missing):
            raise BadInput(f"weights that fit nothing: {unexpected}, or are missing: {missing}")


_SOURCE = "Bhardwaj et al., MLSys 2022, arXiv 2103.09404"


#: Parameters and MACs, as published for twice the size at 360 x 640.
_FIGURES = {
    "m3": "8.9 k parameters, 2.05 G MACs", "m5": "13.5 k parameters, 3.12 G MACs",
    "m7": "18.1 k parameters, 4.18 G MACs", "m11": "27.3 k parameters, 6.30 G MACs",
    "xl": "105 k parameters, 24.3 G MACs",
}  # fmt: skip


def _register(size: str, figures: str) -> None:
    @register_net(
        f"sesr_{size}",
        summary=f"SESR-{size.upper()}, enlarges luminance twice, {figures} at 360 x 640",
        source=_SOURCE,
    )
    def build(
        *,
        input_shape: Shape4 = (1, 1, 360, 640),
        scale: int = 2,
        activation: str = "prelu",
        deploy: bool = True,
        expanded: bool = False,
    ) -> Sesr:
        """Build a SESR network.

        Args:
            input_shape: ``(1, 1, H, W)``.
            scale: Factor of height and width, 2 or 4.
            activation: ``prelu``, or ``relu`` as the paper quantises.
            deploy: Plain convolutions; ``False`` builds the collapsible blocks to train with, which
                :meth:`Sesr.deployed` collapses.
            expanded: Execute the factors of the blocks, which trains the same for more work.
        """
        return Sesr(SESR[size], SesrForm(scale, activation, deploy, expanded), input_shape)


for _size, _text in _FIGURES.items():
    _register(_size, _text)
