# SPDX-License-Identifier: Apache-2.0
"""The training loop: exact continuation, divergence, determinism, and what it reaches."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from chipfit.errors import BadInput, RunMismatch, StorageError, TrainingDiverged
from chipfit.nets import create
from chipfit.tasks import classification
from chipfit.tasks.base import Batch
from chipfit.train import Recipe, fit_model

#: 15 steps, 10 to an epoch.
SHORT = Recipe(epochs=1.5, batch_size=128, learning_rate=0.1, augment=True)


class Stop(Exception):
    """Stands for whatever ends the process."""


@pytest.fixture(scope="module")
def digits():
    return classification("digits")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net(seed=0, dropout=0.2):
    return create(
        "tiny_mobilenet_v2", input_shape=(1, 1, 8, 8), width=0.5, dropout=dropout, seed=seed
    )


class Cut:
    """A task that ends the training when batch ``at`` (counted over this call) is asked for."""

    def __init__(self, task, at):
        self.task, self.left = task, at

    def __getattr__(self, name):
        return getattr(self.task, name)

    def train_batches(self, *arguments, **options):
        for batch in self.task.train_batches(*arguments, **options):
            if self.left == 0:
                raise Stop
            self.left -= 1
            yield batch


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


VARIANTS = {
    "sgd": (SHORT, False),
    "adamw-ema": (
        SHORT.replace(
            optimizer="adamw", learning_rate=0.01, ema_decay=0.9, schedule="cosine",
            gradient_clip=1.0, label_smoothing=0.1,
        ),
        False,
    ),
    "distil": (SHORT.replace(distillation_weight=0.7, temperature=3.0), True),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_training_ends_in_identical_weights(digits, tmp_path, variant):
    recipe, distils = VARIANTS[variant]
    teacher = net(9) if distils else None
    whole = net()
    expected = fit_model(whole, digits, recipe, seed=4, teacher=teacher)
    for number, cuts in enumerate([(1, 5), (10,), (14,)]):
        path = tmp_path / f"{number}.safetensors"
        for at in cuts:
            with pytest.raises(Stop):
                fit_model(
                    net(), Cut(digits, at), recipe, seed=4, checkpoint=path, checkpoint_steps=3,
                    teacher=teacher,
                )  # fmt: skip
        torch.rand(number + 1)  # whatever else drew from the global stream must not matter
        resumed = net()
        result = fit_model(
            resumed, digits, recipe, seed=4, checkpoint=path, checkpoint_steps=3, teacher=teacher
        )
        assert same(whole, resumed), cuts
        assert (result.steps, result.images, result.loss) == (15, expected.images, expected.loss)
        assert result.resumed_at in (3, 9, 12)


def test_kill_9_and_the_same_command_end_in_identical_weights(digits, tmp_path):
    script = """
import os, signal, sys, torch
from pathlib import Path
from chipfit.nets import create
from chipfit.tasks import classification
from chipfit.train import Recipe, fit_model
torch.set_num_threads(1)
task, die_at, seen = classification("digits"), int(sys.argv[2]), 0
inner = task.train_batches
def batches(*arguments, **options):
    global seen
    for batch in inner(*arguments, **options):
        if seen == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        yield batch
task.train_batches = batches
net = create("tiny_mobilenet_v2", input_shape=(1, 1, 8, 8), width=0.5, dropout=0.2)
recipe = Recipe(epochs=1.5, batch_size=128, learning_rate=0.1, augment=True)
fit_model(net, task, recipe, seed=4, checkpoint=Path(sys.argv[1]), checkpoint_steps=2)
"""
    path = tmp_path / "state.safetensors"
    for die_at in (5, 8):
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), str(die_at)], env=os.environ, check=False
        )
        assert done.returncode == -signal.SIGKILL
    whole, resumed = net(), net()
    fit_model(whole, digits, SHORT, seed=4)
    result = fit_model(resumed, digits, SHORT, seed=4, checkpoint=path, checkpoint_steps=4)
    assert result.resumed_at == 12
    assert same(whole, resumed)


def test_a_complete_training_only_loads_its_weights(digits, tmp_path):
    path = tmp_path / "state.safetensors"
    first, again = net(), net()
    fit_model(first, digits, SHORT, checkpoint=path)
    result = fit_model(again, Cut(digits, 0), SHORT, checkpoint=path)
    assert result.resumed_at == result.steps == 15
    assert same(first, again)
    assert not again.training


def test_training_is_repeatable_and_leaves_global_state(digits):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = net(), net(), net()
    fit_model(first, digits, SHORT.replace(steps=5), seed=0, threads=1)
    fit_model(again, digits, SHORT.replace(steps=5), seed=0)
    fit_model(other, digits, SHORT.replace(steps=5), seed=1)
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.features[1].conv[0][0].weight.is_contiguous()


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"recipe": SHORT.replace(learning_rate=0.2)}, {"model_seed": 1}],
    ids=lambda change: next(iter(change)),
)
def test_a_checkpoint_of_another_training_is_refused(digits, tmp_path, change):
    path = tmp_path / "state.safetensors"
    fit_model(net(), digits, SHORT.replace(steps=2), checkpoint=path)
    with pytest.raises(RunMismatch, match="another training"):
        fit_model(
            net(change.get("model_seed", 0)), digits,
            change.get("recipe", SHORT).replace(steps=2),
            seed=change.get("seed", 0), checkpoint=path,
        )  # fmt: skip


def test_a_damaged_checkpoint_is_named(digits, tmp_path):
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(StorageError, match=r"state\.safetensors cannot be read"):
        fit_model(net(), digits, SHORT, checkpoint=path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(StorageError, match=r"state\.safetensors cannot be read"):
        fit_model(net(), digits, SHORT, checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_named(digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        fit_model(net(), digits, SHORT.replace(steps=1), checkpoint=tmp_path / "file" / "state")


class Poisoned:
    """A task whose inputs turn to NaN at one step."""

    def __init__(self, task, at):
        self.task, self.at = task, at

    def __getattr__(self, name):
        return getattr(self.task, name)

    def train_batches(self, size, seed, epoch, *, start=0, augment=True):
        batches = self.task.train_batches(size, seed, epoch, start=start, augment=augment)
        for step, batch in enumerate(batches, start):
            bad = step == self.at and epoch == 0
            yield Batch(batch.inputs * torch.nan, batch.targets) if bad else batch


def test_nan_is_reported_with_step_and_rate_and_the_good_state_is_kept(digits, tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(TrainingDiverged, match="step 7 of 15: the loss is nan") as caught:
        fit_model(net(), Poisoned(digits, 7), SHORT, checkpoint=path, checkpoint_steps=5)
    rate = SHORT.learning_rate_at(7, 15)
    assert f"learning rate {rate:.3g}" in caught.value.message
    assert str(path) in caught.value.message
    kept = load_file(path)
    assert all(torch.isfinite(value).all() for value in kept.values() if value.is_floating_point())
    whole, repaired = net(), net()
    fit_model(whole, digits, SHORT)
    assert fit_model(repaired, digits, SHORT, checkpoint=path).resumed_at == 5
    assert same(whole, repaired)


def test_a_learning_rate_far_too_high_diverges(digits):
    with pytest.raises(TrainingDiverged, match="learning rate"):
        fit_model(net(dropout=0.0), digits, SHORT.replace(learning_rate=1e30, momentum=0.0))


def test_progress_ends_at_the_last_step(digits):
    seen = []
    fit_model(net(), digits, SHORT.replace(steps=3), on_progress=seen.append)
    assert (seen[-1].step, seen[-1].steps, seen[-1].eta_s) == (3, 3, 0.0)
    assert seen[-1].images_per_s > 0


def test_wrong_settings_are_refused(digits):
    with pytest.raises(BadInput, match="no teacher"):
        fit_model(net(), digits, SHORT.replace(distillation_weight=0.5))
    frozen = net()
    frozen.requires_grad_(False)
    with pytest.raises(BadInput, match="no parameters"):
        fit_model(frozen, digits, SHORT)


def test_the_teacher_is_left_as_it_was(digits):
    teacher = net(9).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    fit_model(net(), digits, SHORT.replace(steps=2, distillation_weight=1.0), teacher=teacher)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_digits_are_learnt_in_seconds(digits):
    model = create("tiny_mobilenet_v2", input_shape=(1, 1, 8, 8))
    fit_model(model, digits, digits.recipe)
    assert digits.evaluate(model, "test")["accuracy"] > 0.95
