# SPDX-License-Identifier: Apache-2.0
"""``Preprocessing``: how images become the input that trained weights expect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from chipfit.errors import BadInput


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, normalise. Weights of a network are worth nothing without it.

    The image is resized with antialiasing until the centre of ``size`` is the fraction ``crop`` of
    its shorter side; then ``(x - mean) / std`` with pixels from 0 to 255.

    Args:
        size: ``(H, W)`` that the network reads.
        crop: Fraction of the resized image's shorter side that is kept, above 0 and at most 1.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        mean: Of the three channels, in pixel values.
        std: Of the three channels, in pixel values.
    """

    size: tuple[int, int]
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def resized(self, size: tuple[int, int]) -> Preprocessing:
        """Return the same for a network that reads ``size`` ``(H, W)``."""
        return replace(self, size=size)

    def __call__(self, image: Any) -> torch.Tensor:
        """Return the input ``(1, 3, H, W)``, float32, of one image.

        Args:
            image: uint8 pixels ``(3, H, W)``, a tensor or an array, RGB.

        Raises:
            BadInput: It has another shape or type.
        """
        pixels = torch.as_tensor(image)
        if pixels.dim() != 3 or pixels.shape[0] != 3 or pixels.dtype != torch.uint8:
            raise BadInput(
                f"image of shape {tuple(pixels.shape)} and type {pixels.dtype} is no (3, H, W) of "
                "uint8",
                "arrays of Pillow are (H, W, 3): transpose them",
            )
        height, width = self.size
        scale = max(height / self.crop / pixels.shape[1], width / self.crop / pixels.shape[2])
        around = [round(scale * pixels.shape[1]), round(scale * pixels.shape[2])]
        resized = F.interpolate(
            pixels[None], around, mode=self.interpolation, align_corners=False, antialias=True
        )
        top, left = (around[0] - height) // 2, (around[1] - width) // 2
        cut = resized[:, :, top : top + height, left : left + width].float()
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.mean, self.std))
        return (cut - mean) / std
