# SPDX-License-Identifier: Apache-2.0
"""The data cache: arrays of a data set as ``.npy`` files, written atomically under a lock."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.cache import cache_folder, locked, storage_trouble
from chipfit.errors import BadTask, StorageError

#: File names of a cached data set, without ``.npy``.
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

Arrays = Mapping[str, NDArray[Any]]


def raw_folder(name: str) -> Path:
    """Return the folder where a user may put the original files of a data set."""
    return cache_folder() / "raw" / name


def array_sha256(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes in C order."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def verify(name: str, arrays: Arrays, sums: Mapping[str, str]) -> None:
    """Raise ``BadTask`` where an array is not the published one.

    The sums are of decoded arrays, so every packaging of the same data set passes.
    """
    for key, expected in sums.items():
        found = array_sha256(arrays[key])
        if found != expected:
            raise BadTask(
                f"{key} of data set {name!r} has checksum {found[:16]}, expected {expected[:16]}",
                "the files are damaged or another version; delete them and fetch again",
            )


def cached_arrays(name: str, build: Callable[[Path], Arrays]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a data set from the cache, building them once where they are missing.

    Args:
        name: Of the data set; becomes a folder name.
        build: Called with an empty scratch folder, at most once at a time over all processes;
            returns the arrays named in :data:`ARRAYS`. Its result is used only when complete.

    Returns:
        Read-only memory maps, so that processes share one copy.

    Raises:
        StorageError: The cache cannot be written, for instance because the disk is full.
    """
    folder = cache_folder() / "data" / name
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                _fill(folder, build)
    try:
        return {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in ARRAYS}
    except (OSError, ValueError) as error:
        raise StorageError(
            f"cached data set {folder} cannot be read: {error}", "delete that folder and retry"
        ) from error


def _fill(folder: Path, build: Callable[[Path], Arrays]) -> None:
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise storage_trouble(error, folder.parent) from error
    try:
        (scratch / "work").mkdir()
        (scratch / "done").mkdir()
        arrays = build(scratch / "work")
        for key in ARRAYS:
            with (scratch / "done" / f"{key}.npy").open("wb") as file:
                np.save(file, arrays[key])
                file.flush()
                os.fsync(file.fileno())
        (scratch / "done").rename(folder)
    except OSError as error:
        raise storage_trouble(error, folder) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
