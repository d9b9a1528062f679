# SPDX-License-Identifier: Apache-2.0
"""Augmentation of whole batches in uint8, with an explicit generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for every image.

    Args:
        crop_padding: Zero pixels put on every side before a crop of the original size.
        flip: Mirror left to right with probability 1/2.
    """

    crop_padding: int = 0
    flip: bool = False


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Return augmented copies of images ``(N, C, H, W)``.

    Args:
        images: Of any dtype.
        augmentation: What to draw.
        generator: The only source of randomness.
    """
    count, _, height, width = images.shape
    if augmentation.crop_padding:
        pad = augmentation.crop_padding
        offsets = torch.randint(0, 2 * pad + 1, (2, count), generator=generator)
        rows = offsets[0][:, None] + torch.arange(height)
        columns = offsets[1][:, None] + torch.arange(width)
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        sample = torch.arange(count)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
        images = images.permute(0, 3, 1, 2)
    if augmentation.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images.contiguous()
