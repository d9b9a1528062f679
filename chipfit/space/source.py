# SPDX-License-Identifier: Apache-2.0
"""``stream``: one kind of random stream from whatever a caller has."""

from __future__ import annotations

import random

import numpy as np

#: A seed, or a stream that is drawn from.
Source = int | random.Random | np.random.Generator


def stream(source: Source) -> random.Random:
    """Return a random stream; equal seeds, and generators in equal states, give equal streams.

    A :class:`random.Random` is used as it is; of a :class:`numpy.random.Generator` 16 bytes are
    drawn, so that it moves on.

    >>> stream(3).random() == stream(random.Random(3)).random()
    True
    """
    if isinstance(source, random.Random):
        return source
    if isinstance(source, np.random.Generator):
        return random.Random(int.from_bytes(source.bytes(16), "big"))
    return random.Random(source)
