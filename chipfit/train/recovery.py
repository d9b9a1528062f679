# SPDX-License-Identifier: Apache-2.0
"""Recipes for getting accuracy back after surgery, derived from how the original was trained."""

from __future__ import annotations

from chipfit.train.recipe import Recipe


def short_recovery(recipe: Recipe, steps: int) -> Recipe:
    """Return NetAdapt's short-term fine-tune: a few iterations at a tenth of the learning rate.

    Args:
        recipe: How the original was trained.
        steps: Iterations.
    """
    return recipe.replace(
        steps=steps, learning_rate=0.1 * recipe.learning_rate, schedule="cosine", warmup=0.1,
        ema_decay=0.0, augment=False,
    )  # fmt: skip


def long_recovery(recipe: Recipe, epochs: float) -> Recipe:
    """Return the long-term fine-tune: some epochs with the original as teacher.

    Distillation as in Hinton et al., arXiv 1503.02531: ``(1 - a) CE + a T^2 KL``.

    Args:
        recipe: How the original was trained.
        epochs: Passes over the training data.
    """
    return recipe.replace(
        epochs=epochs, steps=None, learning_rate=0.3 * recipe.learning_rate, schedule="cosine",
        warmup=0.1, distillation_weight=0.7, temperature=4.0,
    )  # fmt: skip
