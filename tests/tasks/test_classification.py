# SPDX-License-Identifier: Apache-2.0
import math
import multiprocessing
import pickle

import numpy as np
import pytest
import torch

from chipfit.errors import BadInput, BadTask, UnknownName
from chipfit.tasks import Augmentation, classification, load_task
from chipfit.tasks.augment import augment
from chipfit.tasks.classification import channel_statistics
from chipfit.train.randomness import generator


@pytest.fixture(scope="module")
def digits():
    return classification("digits")


def test_channel_statistics_equal_numpys():
    images = np.random.RandomState(0).randint(0, 256, (50, 3, 7, 5)).astype(np.uint8)
    picked = np.arange(0, 50, 2)
    mean, std = channel_statistics(images, picked)
    values = images[picked] / 255.0
    assert np.allclose(mean, values.mean((0, 2, 3)), atol=1e-12)
    assert np.allclose(std, values.std((0, 2, 3)), atol=1e-12)


def test_a_constant_channel_is_not_divided_by_zero():
    _, std = channel_statistics(np.full((4, 1, 2, 2), 9, np.uint8), np.arange(4))
    assert std == (1.0,)


def test_training_inputs_are_normalised(digits):
    inputs = torch.cat([b.inputs for b in digits.train_batches(128, 0, 0, augment=False)])
    assert inputs.dtype == torch.float32
    assert abs(float(inputs.mean())) < 0.01
    assert abs(float(inputs.std()) - 1.0) < 0.01


def test_batches_depend_on_seed_and_epoch_alone(digits):
    def inputs(*arguments, **options):
        return [b.inputs for b in digits.train_batches(*arguments, **options)]

    first, again = inputs(64, 1, 2), inputs(64, 1, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first) == digits.steps_per_epoch(64) == 20
    assert not torch.equal(first[0], inputs(64, 1, 3)[0])
    assert not torch.equal(first[0], inputs(64, 2, 2)[0])
    late = inputs(64, 1, 2, start=15)
    assert all(torch.equal(a, b) for a, b in zip(first[15:], late, strict=True))


def test_an_epoch_holds_every_image_once(digits):
    labels = torch.cat([b.targets for b in digits.train_batches(5, 0, 0, augment=False)])
    assert len(labels) == 1295
    expected = np.bincount(digits.data.train_labels[digits.train_indices])
    assert np.array_equal(np.bincount(labels), expected)


def test_crop_with_offset_is_a_shift_and_flip_mirrors():
    images = torch.arange(2 * 1 * 4 * 4, dtype=torch.uint8).reshape(2, 1, 4, 4)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    windows = [padded[:, :, y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    seen = set()
    for seed in range(30):
        out = augment(images, Augmentation(crop_padding=1), generator(seed))
        for n in range(2):
            matches = [i for i, w in enumerate(windows) if torch.equal(w[n], out[n])]
            assert matches
            seen.add(matches[0])
    assert len(seen) == 9
    flipped = augment(images, Augmentation(flip=True), generator(0))
    for n in range(2):
        assert torch.equal(flipped[n], images[n]) or torch.equal(flipped[n], images[n].flip(2))
    many = augment(images[:1].repeat(200, 1, 1, 1), Augmentation(flip=True), generator(0))
    assert 70 < sum(torch.equal(image, images[0]) for image in many) < 130


def test_evaluate_counts_correct_answers(digits):
    class Oracle(torch.nn.Module):
        def __init__(self, labels, wrong):
            super().__init__()
            self.labels, self.wrong, self.seen = torch.as_tensor(labels), wrong, 0

        def forward(self, x):
            assert not self.training
            labels = self.labels[self.seen : self.seen + len(x)].clone()
            labels[: self.wrong] = (labels[: self.wrong] + 1) % 10
            self.seen += len(x)
            return torch.nn.functional.one_hot(labels, 10).float()

    labels = np.array(digits.validation.labels)
    oracle = Oracle(labels, 3).train()
    result = digits.evaluate(oracle, "val")
    assert result["accuracy"] == 1 - 3 / len(labels)
    right, wrong = -math.log(math.e / (math.e + 9)), -math.log(1 / (math.e + 9))
    expected = (right * (len(labels) - 3) + wrong * 3) / len(labels)
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    assert oracle.training
    assert digits.evaluate(Oracle(labels, 0), "val", limit=10) == {
        "accuracy": 1.0, "loss": pytest.approx(right, rel=1e-5), "images": 10.0
    }  # fmt: skip


def test_only_test_reads_the_test_split():
    task = classification("digits")

    def uniform(x):
        return torch.zeros(len(x), 10)

    task.evaluate(uniform, "val")
    task.evaluate(uniform, "train", limit=100)
    task.calibration_batches(4)
    task.example_input()
    list(task.train_batches(64, 0, 0))
    assert task.test_reads == 0
    task.evaluate(uniform, "test")
    inputs, labels = task.test_arrays()
    assert task.test_reads == 2
    assert inputs.shape == (359, 1, 8, 8)
    assert inputs.dtype == np.float32
    assert labels.shape == (359,)


def test_calibration_batches_and_example(digits):
    batches = digits.calibration_batches(3, 8)
    assert [tuple(b.shape) for b in batches] == [(8, 1, 8, 8)] * 3
    assert torch.equal(batches[0], digits.calibration_batches(1, 8)[0])
    assert tuple(digits.example_input().shape) == digits.input_shape == (1, 1, 8, 8)


def test_wrong_use_is_explained(digits):
    with pytest.raises(BadInput, match="unknown split"):
        digits.evaluate(torch.nn.Flatten(), "validation")
    with pytest.raises(BadTask, match="expected 10 logits"):
        digits.evaluate(torch.nn.Flatten(), "val")
    with pytest.raises(BadTask, match="share"):
        classification("digits", validation_fraction=0.0)
    with pytest.raises(UnknownName, match="digits"):
        load_task("digit")


def _worker(task, queue):
    batch = next(task.train_batches(16, 3, 4))
    queue.put((batch.inputs.double().sum().item(), task.recipe.epochs, task.augmentation))


def test_a_task_travels_to_a_spawned_process_without_its_arrays():
    task = classification("digits", augmentation=Augmentation(2))
    assert len(pickle.dumps(task)) < 2000
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_worker, args=(task, queue))
    process.start()
    found = queue.get(timeout=60)
    process.join()
    expected = next(task.train_batches(16, 3, 4)).inputs.double().sum().item()
    assert found == (expected, task.recipe.epochs, Augmentation(2))


OWN_TASK = """
import numpy as np
from chipfit.tasks import Classification
from chipfit.tasks.data import Dataset, Split

class Mine(Classification):
    pass

def make_task():
    images = np.arange(40 * 4, dtype=np.uint8).reshape(40, 1, 2, 2)
    labels = np.arange(40) % 2
    split = Split(images, labels)
    return Mine(Dataset("mine", ("even", "odd"), split, lambda: split))

def nothing():
    return 3

def broken():
    raise RuntimeError("no camera")
"""


def test_a_task_from_the_users_file(tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text(OWN_TASK)
    monkeypatch.chdir(tmp_path)
    for spec in ("my_task.py", "my_task.py:make_task", str(tmp_path / "my_task.py")):
        task = load_task(spec)
        assert task.name == "mine"
        assert task.input_shape == (1, 1, 2, 2)
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(task))
    assert torch.equal(again.example_input(), task.example_input())


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("none.py", "there is no file"),
        ("my_task.py:nope", "defines no 'nope'"),
        ("my_task.py:nothing", "not a Task"),
        ("my_task.py:broken", "RuntimeError: no camera"),
        ("syntax.py", "cannot be run: SyntaxError"),
        ("no.such.module:make", "cannot be imported"),
    ],
)
def test_files_that_make_no_task_are_explained(tmp_path, monkeypatch, spec, word):
    (tmp_path / "my_task.py").write_text(OWN_TASK)
    (tmp_path / "syntax.py").write_text("def make_task(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadTask, match=word):
        load_task(spec)
