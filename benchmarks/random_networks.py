# SPDX-License-Identifier: Apache-2.0
"""Random networks of four families, to judge predictions by; nothing is ever calibrated on them.

``mbconv``    inverted bottlenecks, kernels 3, 5, 7, expansions 3, 4, 6, squeeze-and-excitation or
              not, ReLU6 or hard swish (Howard et al., arXiv 1905.02244)
``convnext``  patchify stem, 7x7 depthwise blocks (Liu et al., arXiv 2201.03545). With
              ``npu=True`` batch norm and ReLU stand where layer norm and GELU were: an int8
              compiler has neither
``resnet``    basic or bottleneck residual blocks (He et al., arXiv 1512.03385)
``ran``       pre-activated collapsed convolutions mixed with inverted bottlenecks, as RAN-e's
              search leaves them

Widths are multiples of 8 three times in four, else any number; inputs are 96 to 224 pixels.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

import torch

from benchmarks.recipes import Recipe, Stage, build
from chipfit.graph.capture import trace
from chipfit.graph.workload import Workload

#: Names of the families, in the order in which networks are drawn.
FAMILIES = ("mbconv", "convnext", "resnet", "ran")
#: Centre of the band of equal MACs; networks lie within 5 % of it, so within 10 % of each other.
BAND_MACS = 150_000_000
BAND_REACH = 0.05


def draw(family: str, seed: int) -> Recipe:
    """Return a random recipe of ``family``, always the same one for a seed."""
    rng = random.Random(f"{family} {seed}")
    size = rng.choice([96, 112, 128, 144, 160, 192, 224])
    aligned = rng.random() < 0.75

    def width(base: float) -> int:
        free = base * rng.uniform(0.5, 1.25)
        return max(8, round(free / 8) * 8 if aligned else round(free))

    if family == "mbconv":
        bases, strides = [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 2, 1, 2, 1]
        stages = tuple(
            Stage(width(base), 1 if i in (0, 6) else rng.randint(1, 4), stride,
                  rng.choice([3, 5, 7]), 1 if i == 0 else rng.choice([3, 4, 6]),
                  rng.random() < 0.3)
            for i, (base, stride) in enumerate(zip(bases, strides, strict=True))
        )  # fmt: skip
        act = rng.choice(["relu6", "hardswish"])
        return Recipe(family, seed, size, width(32), act, stages, rng.choice([640, 960, 1280]))
    if family == "convnext":
        base = rng.choice([24, 32, 40, 48, 64])
        deep = rng.randint(3, 7)
        stages = tuple(
            Stage(width(base * 2**i), deep if i == 2 else rng.randint(1, 3), 2 if i else 1,
                  rng.choice([5, 7, 7]), rng.choice([3, 4, 4]))
            for i in range(4)
        )  # fmt: skip
        return Recipe(family, seed, size, stages[0].width, "gelu", stages)
    if family == "resnet":
        base = rng.choice([16, 24, 32, 48, 64])
        bottleneck = rng.random() < 0.5
        stages = tuple(
            Stage(width(base * 2**i * (2 if bottleneck else 1)), rng.randint(1, 3), 2 if i else 1)
            for i in range(4)
        )
        return Recipe(family, seed, size, width(base), "relu", stages, 0, bottleneck)
    bases, strides = [16, 24, 40, 72, 112, 192], [1, 2, 2, 2, 1, 2]
    ran = []
    for i, (base, stride) in enumerate(zip(bases, strides, strict=True)):
        depth = rng.randint(1, 4)
        ran.append(Stage(
            width(base), depth, stride, rng.choice([3, 3, 5]), rng.choice([3, 4, 6]),
            collapsed=tuple(rng.random() < (0.7 if i < 3 else 0.35) for _ in range(depth)),
        ))  # fmt: skip
    act = rng.choice(["relu6", "hardswish"])
    return Recipe(family, seed, size, width(32), act, tuple(ran), rng.choice([640, 960, 1280]))


@lru_cache(maxsize=512)
def workload_of(recipe: Recipe, npu: bool = False) -> Workload:
    """Return the traced operators of ``recipe``."""
    return trace(build(recipe, npu), torch.zeros(1, 3, recipe.size, recipe.size))


def random_networks(per_family: int = 15, families: Sequence[str] = FAMILIES) -> list[Recipe]:
    """Return ``per_family`` recipes of each family."""
    return [draw(family, seed) for family in families for seed in range(per_family)]


def equal_macs_networks(
    per_family: int = 8, npu: bool = False, families: Sequence[str] = FAMILIES
) -> list[Recipe]:
    """Return recipes whose MACs are within :data:`BAND_REACH` of :data:`BAND_MACS`.

    A drawn network's widths are scaled towards the band a few times; one that does not get there,
    or would have to change by more than a factor of two, is rejected and the next seed is drawn.
    """
    found = []
    for family in families:
        seed, own = 1000, 0
        while own < per_family:
            recipe = _into_band(draw(family, seed), npu)
            if recipe is not None:
                found.append(recipe)
                own += 1
            seed += 1
    return found


def _into_band(recipe: Recipe, npu: bool) -> Recipe | None:
    scale, scaled = 1.0, recipe
    for _ in range(8):
        macs = workload_of(scaled, npu).macs
        if abs(macs / BAND_MACS - 1) <= BAND_REACH:
            return scaled
        scale *= (BAND_MACS / macs) ** 0.5
        if not 0.5 <= scale <= 2:
            return None
        scaled = recipe.scaled(scale)
    return None
