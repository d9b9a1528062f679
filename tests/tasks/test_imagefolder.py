# SPDX-License-Identifier: Apache-2.0
import os

import numpy as np
import pytest
from PIL import Image

from chipfit.errors import BadTask
from chipfit.tasks import classification, load_task
from chipfit.tasks.data import load

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CHIPFIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def fill(folder, count=10, size=(20, 12)):
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", size, colour).save(folder / name / f"{index}.png")


def test_a_single_folder_is_split_the_same_way_every_time(tmp_path):
    fill(tmp_path / "pets")
    data = load(f"imagefolder:{tmp_path}/pets", (8, 6))
    assert data.classes == ("blue", "red")
    assert data.train_images.shape == (16, 3, 8, 6)
    assert np.bincount(data.read_test().labels).tolist() == [2, 2]
    assert data.train_images[0, :, 0, 0].tolist() == [0, 0, 255]
    again = load(f"imagefolder:{tmp_path}/pets", (8, 6))
    assert np.array_equal(data.train_labels, again.train_labels)


def test_train_with_val_and_test(tmp_path):
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        fill(tmp_path / part, count)
    task = classification(f"imagefolder:{tmp_path}", image_size=(8, 8))
    assert len(task.train_indices) == 12
    assert len(task.validation) == 6
    assert len(task.test_arrays()[1]) == 4


def test_val_alone_is_the_test_split(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "val", 3)
    task = classification(f"imagefolder:{tmp_path}", image_size=(8, 8))
    assert (len(task.train_indices), len(task.validation)) == (18, 2)
    assert len(task.test_arrays()[1]) == 6


def test_changed_files_are_decoded_again(tmp_path):
    fill(tmp_path / "a")
    load(f"imagefolder:{tmp_path}/a", (4, 4))
    path = tmp_path / "a" / "red" / "0.png"
    for index in range(10):
        path = tmp_path / "a" / "red" / f"{index}.png"
        Image.new("RGB", (4, 4), (0, 255, 0)).save(path)
        os.utime(path, ns=(1, 1))
    data = load(f"imagefolder:{tmp_path}/a", (4, 4))
    assert data.train_images[-1, :, 0, 0].tolist() == [0, 255, 0]


def test_a_wide_image_is_cropped_in_the_middle(tmp_path):
    fill(tmp_path / "a", 2)
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 200
    for index in range(2):
        Image.fromarray(wide).save(tmp_path / "a" / "red" / f"{index}.png")
    data = load(f"imagefolder:{tmp_path}/a", (4, 4))
    assert (data.train_images[data.train_labels == 1] == 200).all()


def test_folders_that_cannot_be_used_are_explained(tmp_path):
    with pytest.raises(BadTask, match="needs a folder"):
        load("imagefolder")
    with pytest.raises(BadTask, match="does not exist"):
        load(f"imagefolder:{tmp_path}/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadTask, match="0 class folder"):
        load(f"imagefolder:{tmp_path}/empty")
    (tmp_path / "empty" / "a").mkdir()
    (tmp_path / "empty" / "b").mkdir()
    with pytest.raises(BadTask, match="holds no images"):
        load(f"imagefolder:{tmp_path}/empty")
    fill(tmp_path / "half" / "train", 2)
    with pytest.raises(BadTask, match="neither val nor test"):
        load(f"imagefolder:{tmp_path}/half")
    fill(tmp_path / "half" / "test", 2)
    (tmp_path / "half" / "test" / "green").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "half" / "test" / "green" / "0.png")
    with pytest.raises(BadTask, match="differ in classes: green"):
        load(f"imagefolder:{tmp_path}/half")


def test_unreadable_folder(tmp_path):
    fill(tmp_path / "a")
    (tmp_path / "a" / "red" / "loop.png").symlink_to(tmp_path / "a" / "red" / "loop.png")
    load(f"imagefolder:{tmp_path}/a", (4, 4))  # a dangling link is no image
    if os.geteuid() == 0:
        pytest.skip("root reads every folder")
    (tmp_path / "a" / "red").chmod(0)
    try:
        with pytest.raises(BadTask, match="cannot be read"):
            load(f"imagefolder:{tmp_path}/a")
    finally:
        (tmp_path / "a" / "red").chmod(0o755)


def test_corrupt_images_are_named(tmp_path):
    fill(tmp_path / "a")
    (tmp_path / "a" / "red" / "3.png").write_bytes(b"no image")
    whole = (tmp_path / "a" / "red" / "4.png").read_bytes()
    (tmp_path / "a" / "red" / "4.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadTask, match=r"2 image\(s\) cannot be decoded") as caught:
        load(f"imagefolder:{tmp_path}/a", (4, 4))
    assert "3.png" in caught.value.message
    assert "4.png" in caught.value.message


def test_load_task_takes_the_folder_and_size(tmp_path):
    fill(tmp_path / "a")
    assert load_task(f"imagefolder:{tmp_path}/a", (8, 8)).input_shape == (1, 3, 8, 8)
