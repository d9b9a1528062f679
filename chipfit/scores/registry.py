# SPDX-License-Identifier: Apache-2.0
"""``SCORES`` and ``compute``: training-free scores by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from chipfit.errors import BadInput, ChipfitError
from chipfit.registry import Registry


class Score(Protocol):
    """A number for an untrained network; higher promises more accuracy."""

    def __call__(self, net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
        """Return the score.

        Args:
            net: The network, which is left as it was.
            example: Images ``(N, C, H, W)``.
            seed: Of everything that the score draws: labels, inputs, weights.
        """
        ...


#: Training-free scores; in every one of them higher is better.
SCORES: Registry[Score] = Registry("score", "chipfit.scores")


def register_score(name: str, *, summary: str, source: str = "") -> Callable[[Score], Score]:
    """Return a decorator that adds a :class:`Score` to :data:`SCORES`.

    Args:
        name: What users type.
        summary: One line.
        source: The paper.
    """
    return SCORES.register(name, summary=summary, source=source)


def compute(name: str, net: nn.Module, example: torch.Tensor, *, seed: int = 0) -> float:
    """Return one training-free score of ``net``; higher promises more accuracy.

    Equal arguments give equal scores. The network's weights, gradients, buffers and mode, and the
    global random state, are left as they were.

    Args:
        name: Of the score, from :data:`SCORES`.
        net: A network of images to logits ``(N, classes)``.
        example: Images ``(N, C, H, W)``, from a data set or drawn at random; scores of
            the architecture alone look only at the shape of one image.
        seed: Of everything that the score draws.

    Raises:
        UnknownName: No such score.
        BadInput: The score does not apply to this network or this example, or is no number.
    """
    score = SCORES.get(name).value
    if example.dim() != 4 or min(example.shape) < 1:
        raise BadInput(f"example of shape {tuple(example.shape)} is not (N, C, H, W)")
    try:
        value = score(net, example, seed=seed)
    except ChipfitError:
        raise
    except RuntimeError as error:  # PyTorch's, of shapes and gradients
        raise BadInput(f"score {name!r} cannot be computed: {error}") from error
    if math.isnan(value):
        raise BadInput(f"score {name!r} of this network is not a number")
    return value
