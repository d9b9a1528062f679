import pytest

from chipfit.errors import StorageError
from chipfit.files import write_bytes


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "report.html"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (path / "kept").exists()


def test_folders_are_made_and_content_is_replaced(tmp_path):
    write_bytes(tmp_path / "a" / "b", b"one")
    write_bytes(tmp_path / "a" / "b", b"two")
    assert (tmp_path / "a" / "b").read_bytes() == b"two"
    assert len(list((tmp_path / "a").iterdir())) == 1
