# SPDX-License-Identifier: Apache-2.0
"""``DATASETS`` and ``load``: data sets by name."""

from __future__ import annotations

from collections.abc import Callable

from chipfit.errors import BadInput
from chipfit.registry import Registry
from chipfit.tasks.data.dataset import Dataset

#: Builds a data set from what follows the colon in its name (``""`` where there is no colon) and
#: the image size ``(H, W)`` that the user asked for, ``None`` for the data set's own.
Loader = Callable[[str, tuple[int, int] | None], Dataset]

#: Loaders of data sets.
DATASETS: Registry[Loader] = Registry("data set", "chipfit.tasks.data")


def register_data(name: str, *, summary: str, source: str = "") -> Callable[[Loader], Loader]:
    """Return a decorator that adds a loader to :data:`DATASETS`.

    Args:
        name: What users type, without a colon.
        summary: One line for ``chipfit data``.
        source: Where it comes from, and its licence.
    """
    return DATASETS.register(name, summary=summary, source=source)


def load(name: str, image_size: tuple[int, int] | None = None) -> Dataset:
    """Return a data set, fetched and cached where necessary.

    Args:
        name: A name from ``chipfit data``, or ``imagefolder:DIR``.
        image_size: ``(H, W)`` to resize to, for ``imagefolder`` only.

    Raises:
        UnknownName: No such data set.
        DataUnavailable: It is neither cached nor reachable.
        BadTask: Its files cannot be used.
        BadInput: A data set of fixed size was asked for in another one.
    """
    kind, _, argument = name.partition(":")
    return DATASETS.get(kind).value(argument, image_size)


def refuse_options(name: str, argument: str, image_size: tuple[int, int] | None) -> None:
    """Raise ``BadInput`` where a data set of fixed size and no argument was given either."""
    if argument:
        raise BadInput(f"data set {name!r} takes no argument, got {argument!r}")
    if image_size is not None:
        raise BadInput(
            f"data set {name!r} has a fixed image size; it cannot be resized to {image_size}",
            "leave the size out, or use imagefolder:DIR",
        )
