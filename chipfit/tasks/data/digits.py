# SPDX-License-Identifier: Apache-2.0
"""Digits: 1797 grey images of 8 x 8 pixels, part of the package, so that nothing is downloaded.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (CC BY 4.0): its test part, as it comes with scikit-learn (BSD-3-Clause). Values
0..16 are stretched to 0..255. It has no test split of its own; a fifth of every class, drawn with a
fixed seed, is kept as one.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from chipfit.tasks.data.dataset import Dataset, Split, stratified_cut
from chipfit.tasks.data.registry import refuse_options, register_data

_TEST_SEED = 1797


@register_data(
    "digits",
    summary="1438 + 359 grey images of handwritten digits, 8 x 8, 10 classes; no download",
    source="Alpaydin and Kaynak, UCI 1998 (CC BY 4.0), as bundled with scikit-learn",
)
def digits(argument: str, image_size: tuple[int, int] | None) -> Dataset:
    """Load the digits."""
    refuse_options("digits", argument, image_size)
    with files("chipfit.tasks.data").joinpath("digits.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    images = (images.astype(np.uint16) * 255 // 16).astype(np.uint8)[:, None]
    train, test = stratified_cut(labels, 0.2, _TEST_SEED)
    return Dataset(
        "digits",
        tuple("0123456789"),
        Split(images[train], labels[train]),
        lambda: Split(images[test], labels[test]),
    )
