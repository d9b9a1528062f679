# SPDX-License-Identifier: Apache-2.0
"""IDX, the file format of MNIST and its relatives, plain or gzipped.

A file is ``00 00 type rank``, then ``rank`` sizes as big-endian 32-bit integers, then the values.
Only unsigned bytes (type 8) occur here.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadTask

#: Array name and file name of the four files of such a data set.
FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
#: More axes than any data set has.
_MOST_AXES = 8


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes; gzip is recognised by content.

    Raises:
        BadTask: The file is truncated, damaged or of another type.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadTask(f"{path} is a damaged gzip file: {error}", "fetch it again") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise BadTask(f"{path} is not an IDX file of unsigned bytes", "fetch it again")
    rank = data[3]
    if rank > _MOST_AXES:
        raise BadTask(f"{path} has {rank} axes in its header", "it is damaged; fetch it again")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise BadTask(
            f"{path} holds {values.size} values, its header says {math.prod(shape)}",
            "it is truncated; fetch it again",
        )
    return values.reshape(shape)


def find_idx_folder(folders: Sequence[Path]) -> Path | None:
    """Return the first folder that holds all four files, plain or as ``.gz``."""
    for folder in folders:
        if all(_present(folder, name) for name in FILES.values()):
            return folder
    return None


def read_idx_folder(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the four arrays: images as ``(N, 1, H, W)`` uint8, labels as ``(N,)`` int64.

    Raises:
        BadTask: A file is missing or damaged.
        OSError: A file cannot be read.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for key, name in FILES.items():
        path = _present(folder, name)
        if path is None:
            raise BadTask(f"{folder} holds neither {name} nor {name}.gz")
        values = read_idx(path)
        expected = 3 if key.endswith("images") else 1
        if values.ndim != expected:
            raise BadTask(f"{path} has {values.ndim} axes, expected {expected}")
        arrays[key] = values[:, None] if expected == 3 else values.astype(np.int64)
    return arrays


def _present(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None
