# SPDX-License-Identifier: Apache-2.0
"""Narrow a network for real and compare: only what then equals the masked network stays free.

All groups are narrowed at once. Where that fails, attributes that may be sizes follow, and where
that fails too, kinds of groups are looked at one by one (the groups of equal layers of repeated
blocks are one kind). Groups that remain are tied (:mod:`chipfit.graph.coupling_ties`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from chipfit.graph.coupling_attributes import Candidates
from chipfit.graph.coupling_groups import ChannelGroup, Member
from chipfit.graph.coupling_ties import Tied, bundled, tied
from chipfit.graph.coupling_trial import Trial

#: Trials of one network; groups that are not verified by then are frozen.
TRIALS = 120


def verified(
    net: nn.Module, example: Any, groups: Sequence[ChannelGroup],
    found: Mapping[str, Candidates], delicate: bool,
) -> list[ChannelGroup]:  # fmt: skip
    """Return the groups with the attributes they need; what cannot be narrowed is frozen.

    Args:
        net: The network, on the CPU or the meta device; it is not changed.
        example: What it is called with; numbers are drawn anew.
        groups: All groups.
        found: What may have to change with the width, by name of group.
        delicate: Whether to compare in double precision.
    """
    free = [group for group in groups if not group.frozen]
    if not free:
        return list(groups)
    trial = Trial(net, example, delicate)
    search = _Search(trial, found)
    done = {group.name: group for group in search.settle(free)}
    return [done.get(g.name, g) for g in groups if g.frozen or g.name in done]


class _Search:
    """Finds the attributes that groups need, in as few trials as it can."""

    def __init__(self, trial: Trial, found: Mapping[str, Candidates]) -> None:
        self._trial, self._found = trial, found

    def settle(self, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Return the groups with their attributes, or frozen."""
        if not self._trial.failure(groups):
            return list(groups)
        for options in (self._numbers, self._everything):
            whole = [options(group) for group in groups]
            if not self._trial.failure(whole):
                found = self._thinned(whole)
                break
        else:
            found = [g for kind in _kinds(groups).values() for g in self._alone(kind)]
        good = [group for group in found if not group.frozen]
        bad = [group for group in found if group.frozen]
        while good and (reason := self._trial.failure(good)):
            good, cut = self._joined(good, reason)
            bad += cut
        return self._tied(good, bad)

    def _tied(
        self, good: Sequence[ChannelGroup], bad: Sequence[ChannelGroup]
    ) -> list[ChannelGroup]:
        """Return all groups; of those of no use alone, several are one where that works."""
        free, left = list(good), {group.name: group for group in bad}
        names = dict.fromkeys(_plain(m) for g in bad for m in self._of(g).numbers)
        switches = {_plain(m) for g in bad for m in self._of(g).switches}
        alone = [{name} for name in names] if len(names) > 1 else []  # two may have one value
        ways: list[tuple[Callable[..., list[Tied]], set[str]]] = [
            *((tied, some) for some in (*alone, set(names))),
            *(
                (partial(bundled, fine=fine), some)
                for fine in (True, False)
                for own in (set(names), set[str](), *alone)
                for some in ((own, own | switches) if switches else (own,))
            ),
        ]
        tried: set[tuple[ChannelGroup, ...]] = set()
        for way, some in ways:
            own = {
                name: [m for m in self._all(group) if _plain(m) in some]
                for name, group in left.items()
            }
            made_of = dict(way(list(left.values()), own))
            for kind in _kinds([*made_of]).values():
                if self._trial.count >= 2 * TRIALS or tuple(kind) in tried:
                    continue
                tried.add(tuple(kind))
                if not self._trial.failure([*free, *kind]):
                    free += kind
                    for part in (part for whole in kind for part in made_of[whole]):
                        del left[part]
        return [*free, *left.values()]

    def _numbers(self, group: ChannelGroup) -> ChannelGroup:
        return replace(group, attributes=self._of(group).numbers)

    def _everything(self, group: ChannelGroup) -> ChannelGroup:
        return replace(group, attributes=self._all(group))

    def _switched(self, group: ChannelGroup) -> ChannelGroup:
        own = dict.fromkeys((*group.attributes, *self._of(group).switches))
        return replace(group, attributes=tuple(own))

    def _all(self, group: ChannelGroup) -> tuple[Member, ...]:
        own = self._of(group)
        return (*own.numbers, *own.switches)

    def _of(self, group: ChannelGroup) -> Candidates:
        return self._found.get(group.name, Candidates())

    def _thinned(self, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Drop the attributes, kind by kind, that are not needed."""
        present = list(groups)
        keys = dict.fromkeys((_kind(g), _plain(m)) for g in groups for m in g.attributes)
        for key in keys:
            fewer = [_without(group, key) for group in present]
            if self._trial.count < TRIALS and not self._trial.failure(fewer):
                present = fewer
        kinds = _kinds(present)
        if len(kinds) == 1:
            return present
        found: list[ChannelGroup] = []
        for kind in kinds.values():  # one kind may have lived on another's attributes
            doubtful = any(group.attributes or self._of(group).numbers for group in kind)
            if doubtful and self._trial.count < TRIALS and self._trial.failure(kind):
                kind = self._alone([replace(group, attributes=()) for group in kind])
            found += kind
        return found

    def _alone(self, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Return groups of one kind, verified or frozen."""
        if not groups:
            return []
        reason = "a narrower network was not tried"
        if self._trial.count >= TRIALS:
            return [replace(group, frozen=reason) for group in groups]
        tries: list[Callable[[ChannelGroup], ChannelGroup]] = [lambda group: group]
        if any(self._of(group).numbers for group in groups):
            tries.append(self._numbers)
            names = dict.fromkeys(_plain(m) for g in groups for m in self._of(g).numbers)
            tries += [_only(self._of, name) for name in names] if len(names) > 1 else []
        if any(self._of(group).switches for group in groups):
            tries.append(self._everything)
        for i, options in enumerate(tries):
            whole = [options(group) for group in groups]
            failure = self._trial.failure(whole)
            if not failure:
                return self._thinned(whole) if i else whole
            reason = failure if i == 0 else reason
        if len(groups) == 1:
            return [replace(groups[0], frozen=reason)]
        first = self._alone(groups[:1])
        if first[0].frozen:  # what one of a kind cannot, the others are not asked
            return [replace(group, frozen=first[0].frozen, attributes=()) for group in groups]
        half = (len(groups) + 1) // 2
        return [*first, *self._alone(groups[1:half]), *self._alone(groups[half:])]

    def _joined(
        self, groups: Sequence[ChannelGroup], reason: str
    ) -> tuple[list[ChannelGroup], list[ChannelGroup]]:
        """Put kinds together one after the other; freeze those that do not go with the others."""
        good: list[ChannelGroup] = []
        bad: list[ChannelGroup] = []
        for kind in _kinds(groups).values():
            spent = self._trial.count >= 2 * TRIALS
            failure = reason if spent else self._trial.failure([*good, *kind])
            if failure and not spent:  # alone, a softmax may be too sure for its scale to matter
                switched = [self._switched(group) for group in kind]
                if switched != list(kind) and not self._trial.failure([*good, *switched]):
                    good += switched
                    continue
            if failure:
                bad += [replace(group, frozen=failure, attributes=()) for group in kind]
            else:
                good += kind
        return good, bad


def _plain(member: Member) -> str:
    return f"{re.sub(r'[0-9]+', 'N', member.module)}|{member.side}"


def _kind(group: ChannelGroup) -> str:
    parts = {f"{_plain(m)}x{len(m.index[0])}" for m in group.members}
    return re.sub(r"[0-9]+", "N", group.name.partition("#")[0]) + " " + " ".join(sorted(parts))


def _kinds(groups: Sequence[ChannelGroup]) -> dict[str, list[ChannelGroup]]:
    found: dict[str, list[ChannelGroup]] = {}
    for group in groups:
        found.setdefault(_kind(group), []).append(group)
    return found


def _without(group: ChannelGroup, key: tuple[str, str]) -> ChannelGroup:
    if _kind(group) != key[0]:
        return group
    return replace(group, attributes=tuple(m for m in group.attributes if _plain(m) != key[1]))


def _only(
    of: Callable[[ChannelGroup], Candidates], name: str
) -> Callable[[ChannelGroup], ChannelGroup]:
    def options(group: ChannelGroup) -> ChannelGroup:
        return replace(group, attributes=tuple(m for m in of(group).numbers if _plain(m) == name))

    return options
