# SPDX-License-Identifier: Apache-2.0
"""``imagefolder:DIR``: the user's own images, one folder per class.

``DIR/train/CLASS/*`` with ``DIR/test/CLASS/*`` or ``DIR/val/CLASS/*`` (with both, ``val`` is the
validation split; with ``val`` alone it is the test split), or ``DIR/CLASS/*``, of which a fifth of
every class, drawn with a fixed seed, becomes the test split. Images are scaled to cover the wanted
size and cropped in the middle; the decoded arrays are cached until a file changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadTask, ChipfitError
from chipfit.packages import note
from chipfit.tasks.data.cache import Arrays, cached_arrays
from chipfit.tasks.data.dataset import Dataset, Split, stratified_cut
from chipfit.tasks.data.pillow import pillow
from chipfit.tasks.data.registry import register_data

#: What counts as an image, by suffix.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

#: ``(H, W)`` where the user names none.
DEFAULT_SIZE = (224, 224)

_TEST_SEED = 1

Listing = list[tuple[Path, int]]


@register_data(
    "imagefolder",
    summary="imagefolder:DIR, your own images: DIR/train/CLASS, DIR/val/CLASS or DIR/CLASS",
    source="your own files",
)
def imagefolder(argument: str, image_size: tuple[int, int] | None) -> Dataset:
    """Load the images under a folder.

    Args:
        argument: The folder.
        image_size: ``(H, W)`` to scale and crop to; :data:`DEFAULT_SIZE` where ``None``.

    Raises:
        BadTask: The folder is missing, unreadable or empty, classes of its splits differ, or images
            cannot be decoded; the message names the files.
    """
    if not argument:
        raise BadTask("data set 'imagefolder' needs a folder", "write imagefolder:DIR")
    root, size = Path(argument).expanduser().resolve(), image_size or DEFAULT_SIZE
    if min(size) < 1:
        raise BadTask(f"image size {size} must be positive")
    classes, listings = _listings(root)
    fingerprint = hashlib.sha256(repr((str(root), size, classes)).encode())
    for part, listing in listings.items():
        for path, label in listing:
            stat = path.stat()
            fingerprint.update(
                repr((part, str(path), label, stat.st_size, stat.st_mtime_ns)).encode()
            )
    arrays = cached_arrays(
        f"imagefolder-{fingerprint.hexdigest()[:24]}", lambda _: _decode(listings, size)
    )
    train = Split(arrays["train_images"], arrays["train_labels"])
    validation = None
    if "val" in listings and "test" in listings:
        # The cache knows two parts, so validation images stand behind those for training.
        count = len(listings["train"])
        validation = Split(train.images[count:], train.labels[count:])
        train = Split(train.images[:count], train.labels[:count])
    return Dataset(
        f"imagefolder:{argument}",
        classes,
        train,
        lambda: Split(arrays["test_images"], arrays["test_labels"]),
        validation,
    )


def _listings(root: Path) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """Return the classes, and by ``train``, ``test`` and perhaps ``val`` the images with labels."""
    folders = _folders(root)
    if not (root / "train").is_dir():
        classes, everything = _split(root, folders)
        train, test = stratified_cut(np.array([label for _, label in everything]), 0.2, _TEST_SEED)
        if len(train) == 0 or len(test) == 0:
            raise BadTask(
                f"{root} holds {len(everything)} images, too few to cut a test split from",
                "put at least two images into each class folder",
            )
        return classes, {
            "train": [everything[i] for i in train],
            "test": [everything[i] for i in test],
        }
    classes, train_listing = _split(root / "train", _folders(root / "train"))
    listings = {"train": train_listing}
    for part in ("val", "test"):
        if (root / part).is_dir():
            found, listings[part] = _split(root / part, _folders(root / part))
            if found != classes:
                odd = sorted(set(found) ^ set(classes))
                raise BadTask(
                    f"{root / part} and {root / 'train'} differ in classes: {', '.join(odd[:8])}",
                    "give both the same class folders",
                )
    if len(listings) == 1:
        raise BadTask(
            f"{root} has a train folder but neither val nor test",
            "add one of them, or put the class folders directly into it",
        )
    if "test" not in listings:
        listings["test"] = listings.pop("val")
    return classes, listings


def _folders(root: Path) -> list[Path]:
    with _readable(root):
        if not root.is_dir():
            raise BadTask(f"image folder {root} does not exist", "check the path after the colon")
        return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _split(root: Path, folders: list[Path]) -> tuple[tuple[str, ...], Listing]:
    if len(folders) < 2:
        raise BadTask(
            f"{root} holds {len(folders)} class folder(s)", "expected one folder for each class"
        )
    listing: Listing = []
    for label, folder in enumerate(folders):
        with _readable(folder):
            paths = sorted(
                p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()
            )
        if not paths:
            raise BadTask(
                f"class folder {folder} holds no images", f"expected {', '.join(SUFFIXES[:4])} ..."
            )
        listing.extend((path, label) for path in paths)
    return tuple(folder.name for folder in folders), listing


def _decode(listings: dict[str, Listing], size: tuple[int, int]) -> Arrays:
    parts = {"train": listings["train"] + listings.get("val", []), "test": listings["test"]}
    note(f"decoding {sum(map(len, parts.values()))} images to {size[0]} x {size[1]}")
    arrays: dict[str, NDArray[Any]] = {}
    damaged: list[str] = []
    for part, listing in parts.items():
        images = np.empty((len(listing), 3, *size), np.uint8)
        for index, (path, _) in enumerate(listing):
            try:
                images[index] = _read_image(path, size)
            except ChipfitError:
                raise
            except Exception as error:  # decoders raise what they like
                damaged.append(f"{path} ({error})")
        arrays[f"{part}_images"] = images
        arrays[f"{part}_labels"] = np.array([label for _, label in listing], np.int64)
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise BadTask(
            f"{len(damaged)} image(s) cannot be decoded: {'; '.join(damaged[:5])}{more}",
            "repair or remove them",
        )
    return arrays


def _read_image(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    pil = pillow()
    with pil.Image.open(path) as opened:
        upright = pil.ImageOps.exif_transpose(opened).convert("RGB")
        fitted = pil.ImageOps.fit(upright, (size[1], size[0]), pil.Image.Resampling.BICUBIC)
        return np.asarray(fitted).transpose(2, 0, 1)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadTask(
            f"image folder {folder} cannot be read: {error.strerror or error}",
            "check its permissions",
        ) from error
