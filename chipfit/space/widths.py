# SPDX-License-Identifier: Apache-2.0
"""The width space of a network: one ordered choice per channel group."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chipfit.errors import BadInput
from chipfit.graph.channels import ChannelGroup
from chipfit.space.choice import Choice, SearchSpace


def width_options(channels: int, alignment: int) -> tuple[int, ...]:
    """Return the widths up to ``channels`` that the device likes, and ``channels`` itself.

    >>> width_options(20, 8)
    (8, 16, 20)
    """
    return (*range(alignment, channels, alignment), channels)


def width_step(group: ChannelGroup, alignment: int) -> int:
    """Return how many channels of a group make layers a multiple of ``alignment`` narrower.

    A head of 64 channels is such a multiple by itself.
    """
    each = math.gcd(*(len(member.index[0]) for member in group.members if member.side == "out"))
    return alignment // math.gcd(alignment, each)


def width_space(groups: Sequence[ChannelGroup], alignment: int) -> SearchSpace:
    """Return the space of widths of all groups that can change.

    Raises:
        BadInput: No group can change; the message says why each is frozen.
    """
    steps = {group.name: width_step(group, alignment) for group in groups}
    free = [group for group in groups if not group.frozen and group.channels > steps[group.name]]
    if not free:
        reasons = "; ".join(
            f"{g.name}: {g.frozen or f'{g.channels} channels, alignment {alignment}'}"
            for g in groups[:8]
        )
        raise BadInput(f"no layer of this network can be made narrower ({reasons})")
    return SearchSpace(
        tuple(Choice(g.name, width_options(g.channels, steps[g.name]), ordered=True) for g in free)
    )
