# SPDX-License-Identifier: Apache-2.0
"""Architectures as numbers: option indices, and flat one-hot vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput

if TYPE_CHECKING:
    from chipfit.space.choice import Choice

Codes = NDArray[np.int64]
Values = NDArray[np.float64]


def encode(choices: Sequence[Choice], values: Mapping[str, Any]) -> Codes:
    """Return the index of every choice's option, ``(choices,)``.

    Raises:
        BadInput: A choice takes an option that it does not have.
    """
    return np.array([choice.index(values[choice.name]) for choice in choices], dtype=np.int64)


def decode(choices: Sequence[Choice], row: Sequence[int] | Codes) -> dict[str, Any]:
    """Return the options of indices, by the name of their choice.

    Raises:
        BadInput: There are more or fewer indices than choices, or one is out of range.
    """
    if len(row) != len(choices):
        raise BadInput(f"{len(row)} option indices for {len(choices)} choices")
    found = {}
    for choice, index in zip(choices, map(int, row), strict=True):
        if not 0 <= index < len(choice.options):
            raise BadInput(f"there is no option {index} of {choice.name}")
        found[choice.name] = choice.options[index]
    return found


def one_hot(choices: Sequence[Choice], values: Mapping[str, Any]) -> Values:
    """Return one number per option of every choice, per member where multi-hot: 1 where taken.

    Raises:
        BadInput: A choice takes an option that it does not have.
    """
    bits = [bit for choice in choices for bit in choice.bits(values[choice.name])]
    return np.array(bits, dtype=np.float64)


def from_one_hot(choices: Sequence[Choice], vector: Sequence[float] | Values) -> dict[str, Any]:
    """Return the options of a vector from :func:`one_hot`, by the name of their choice.

    Raises:
        BadInput: The vector has another length, or takes too few or too many members.
    """
    widths = [choice.width for choice in choices]
    if len(vector) != sum(widths):
        raise BadInput(f"{len(vector)} values for a one-hot vector of {sum(widths)}")
    at, found = 0, {}
    for choice, width in zip(choices, widths, strict=True):
        found[choice.name] = choice.from_bits([float(v) for v in vector[at : at + width]])
        at += width
    return found
