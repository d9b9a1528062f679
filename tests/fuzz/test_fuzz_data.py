# SPDX-License-Identifier: Apache-2.0
"""Damaged data files: IDX, gzip, PNG, CIFAR-10's binaries. An error of chipfit each, or arrays."""

import gzip
import struct
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from chipfit.errors import BadTask, ChipfitError
from chipfit.tasks.data.cifar10 import read_binary_folder, read_png_folder
from chipfit.tasks.data.idx import FILES, read_idx, read_idx_folder
from chipfit.tasks.data.imagefolder import _decode

pytest.importorskip("PIL")
from PIL import Image

sys.path.append(str(Path(__file__).parent))

from mutations import damaged, examples, survives

IDX = b"\0\0\x08\x03" + struct.pack(">3I", 2, 4, 4) + bytes(range(32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def _written(path, data):
    path.write_bytes(data)
    return path


@examples(200)
@given(data=damaged(IDX))
def test_idx(folder, data):
    survives(lambda: read_idx(_written(folder / "idx", data)))


@examples(150)
@given(data=damaged(gzip.compress(IDX, mtime=0)))
def test_gzipped_idx(folder, data):
    survives(lambda: read_idx(_written(folder / "idx.gz", data)))


def test_impossible_idx_headers(folder):
    many = b"\0\0\x08\xc8" + struct.pack(">200I", *[1] * 200) + b"\7"
    for data in (many, b"\0\0\x08\x01" + b"\xff" * 4, b"\0\0\x08\x03" + b"\xff" * 12):
        with pytest.raises(BadTask):
            read_idx(_written(folder / "idx", data))


def test_folders_of_another_rank(folder):
    for name in FILES.values():
        _written(folder / name, IDX)
    with pytest.raises(BadTask, match="axes"):
        read_idx_folder(folder)


def png():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@examples(150)
@given(data=damaged(png()))
def test_images(folder, data):
    path = _written(folder / "image.png", data)
    listing = {"train": [(path, 0)], "test": [(path, 0)]}
    survives(lambda: _decode(listing, (8, 8)))


def test_images_that_would_fill_the_memory_are_refused(folder):
    data = bytearray(png())
    data[16:24] = struct.pack(">2I", 200_000, 200_000)
    path = _written(folder / "bomb.png", bytes(data))
    with pytest.raises(BadTask, match=r"bomb\.png"):
        _decode({"train": [(path, 0)], "test": []}, (8, 8))
    for i in range(1, 6):
        _written(folder / f"data_batch_{i}.png", bytes(data))
    with pytest.raises(BadTask):
        read_png_folder(folder)


@examples(60)
@given(data=damaged(b"[1, 2, 3]"))
def test_labels_of_cifar(folder, data):
    wide = folder / "wide.png"
    if not wide.exists():
        Image.fromarray(np.zeros((1, 1024, 3), np.uint8)).save(wide)
        for i in range(1, 6):
            _written(folder / f"data_batch_{i}.png", wide.read_bytes())
        _written(folder / "test_batch.png", wide.read_bytes())
        (folder / "test_lables.json").write_text("[1]")
    _written(folder / "train_lables.json", data)
    survives(lambda: read_png_folder(folder))


def test_truncated_cifar_binaries(folder):
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        _written(folder / name, b"\1" * 3000)
    with pytest.raises(ChipfitError, match="truncated"):
        read_binary_folder(folder)
