# SPDX-License-Identifier: Apache-2.0
"""What the data sets of fixed content share: sources tried in order, checksums, the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from chipfit.errors import ChipfitError, DataUnavailable, MissingBackend, StorageError
from chipfit.tasks.data.cache import cached_arrays, raw_folder, verify
from chipfit.tasks.data.dataset import Dataset, Split

Arrays = Mapping[str, NDArray[Any]]

#: Gets an empty scratch folder; returns the four arrays, or raises ``DataUnavailable``.
Source = Callable[[Path], Arrays]


def build_named(
    name: str,
    classes: tuple[str, ...],
    sources: Sequence[tuple[str, Source]],
    sums: Mapping[str, str],
) -> Dataset:
    """Return a data set from the cache, or from the first source that has it.

    Args:
        name: Of the data set.
        classes: Names of its classes.
        sources: What each source is called in messages, and the source.
        sums: SHA-256 of the four decoded arrays.

    Raises:
        DataUnavailable: No source has it; the message says what each of them answered.
        StorageError: The cache cannot be written.
    """

    def build(scratch: Path) -> Arrays:
        answers = []
        for number, (label, source) in enumerate(sources):
            folder = scratch / str(number)
            folder.mkdir()
            try:
                arrays = source(folder)
                verify(name, arrays, sums)
            except (StorageError, MissingBackend):
                raise
            except ChipfitError as error:
                answers.append(f"{label}: {error}")
            else:
                return arrays
        raise DataUnavailable(
            f"data set {name!r} is not cached and no source has it: " + "; ".join(answers),
            f"put its original files into {raw_folder(name)}, or use --data digits, which needs "
            "no download",
        )

    arrays = cached_arrays(name, build)

    def split(part: str) -> Split:
        return Split(arrays[f"{part}_images"], arrays[f"{part}_labels"])

    return Dataset(name, classes, split("train"), lambda: split("test"))
