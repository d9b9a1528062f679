# SPDX-License-Identifier: Apache-2.0
"""Training: recipes, the loop, distillation, batch-norm statistics."""

from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.distill import distillation_loss
from chipfit.train.loop import fit_model
from chipfit.train.progress import Progress, TrainResult
from chipfit.train.recipe import Recipe

__all__ = [
    "Progress",
    "Recipe",
    "TrainResult",
    "distillation_loss",
    "fit_model",
    "recalibrate_batchnorm",
]
