# SPDX-License-Identifier: Apache-2.0
"""Mutation and crossover of rows of option indices."""

from __future__ import annotations

import random
from collections.abc import Sequence

from chipfit.blackbox.order import Row


def _another(option: int, size: int, rng: random.Random) -> int:
    drawn = rng.randrange(size - 1)
    return drawn + (drawn >= option)


def mutate_one(row: Row, sizes: Sequence[int], rng: random.Random) -> Row:
    """Return ``row`` with another option, uniformly, of one choice that has several, uniformly."""
    free = [i for i, size in enumerate(sizes) if size > 1]
    if not free:
        return row
    i = rng.choice(free)
    return (*row[:i], _another(row[i], sizes[i], rng), *row[i + 1 :])


def mutate_each(row: Row, sizes: Sequence[int], rate: float, rng: random.Random) -> Row:
    """Return ``row`` in which each choice takes another option with probability ``rate``."""
    return tuple(
        _another(option, size, rng) if size > 1 and rng.random() < rate else option
        for option, size in zip(row, sizes, strict=True)
    )


def uniform_crossover(one: Row, other: Row, rng: random.Random) -> tuple[Row, Row]:
    """Return two children that take every choice from either parent, one the reverse of the other.

    Syswerda, "Uniform Crossover in Genetic Algorithms", ICGA 1989.
    """
    swapped = [rng.random() < 0.5 for _ in one]
    return (
        tuple(b if swap else a for a, b, swap in zip(one, other, swapped, strict=True)),
        tuple(a if swap else b for a, b, swap in zip(one, other, swapped, strict=True)),
    )


def two_point_crossover(one: Row, other: Row, rng: random.Random) -> tuple[Row, Row]:
    """Return two children that exchange the choices between two random cuts.

    Neighbouring choices, such as those of one stage, stay together more often than with
    :func:`uniform_crossover`. PAD-NAS's search crosses so.
    """
    start, stop = sorted(rng.randrange(len(one) + 1) for _ in range(2))
    return (
        (*one[:start], *other[start:stop], *one[stop:]),
        (*other[:start], *one[start:stop], *other[stop:]),
    )
