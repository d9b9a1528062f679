# SPDX-License-Identifier: Apache-2.0
"""Recipes per data set, for ``tiny_mobilenet_v2`` and networks like it, with what they reach."""

from __future__ import annotations

from dataclasses import dataclass

from chipfit.tasks.augment import Augmentation
from chipfit.train.recipe import Recipe


@dataclass(frozen=True)
class Defaults:
    """What a data set is trained with unless the user says otherwise."""

    recipe: Recipe
    augmentation: Augmentation


DEFAULTS = {
    "digits": Defaults(
        Recipe(epochs=12, batch_size=64, learning_rate=0.1, augment=True), Augmentation(1)
    ),
    "mnist": Defaults(Recipe(epochs=3), Augmentation(2)),
    "fashion-mnist": Defaults(Recipe(epochs=7), Augmentation(2, flip=True)),
    "cifar10": Defaults(Recipe(epochs=8, augment=True), Augmentation(flip=True)),
    "imagefolder": Defaults(
        Recipe(epochs=20, batch_size=32, learning_rate=0.05, augment=True),
        Augmentation(8, flip=True),
    ),
}


def defaults_for(data_name: str) -> Defaults:
    """Return the defaults of a data set by name; the part behind a colon does not matter."""
    return DEFAULTS.get(data_name.partition(":")[0], DEFAULTS["imagefolder"])
