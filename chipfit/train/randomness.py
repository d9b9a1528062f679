# SPDX-License-Identifier: Apache-2.0
"""Random streams that depend on named numbers only, never on what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(*numbers: int | str) -> int:
    """Return a 63-bit seed for integers and names; different tuples give unrelated seeds."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator for a tuple of integers, for instance ``(seed, epoch, step)``."""
    return torch.Generator().manual_seed(stream_seed(*numbers))


@contextmanager
def private_global_stream() -> Iterator[None]:
    """Put torch's global CPU random state back afterwards, without touching accelerators."""
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


def seed_global_stream(*numbers: int) -> None:
    """Seed torch's global CPU generator, which dropout draws from.

    ``torch.manual_seed`` would also queue a call for accelerators at every step.
    """
    torch.random.default_generator.manual_seed(stream_seed(*numbers))
