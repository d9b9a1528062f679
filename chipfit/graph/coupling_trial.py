# SPDX-License-Identifier: Apache-2.0
"""Narrow a network for real and compare: only what then equals the masked network stays free.

All groups are narrowed at once. Where that fails, attributes that may be sizes follow, and where
that fails too, kinds of groups are looked at one by one (the groups of equal layers of repeated
blocks are one kind).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from chipfit.graph.coupling_attributes import Candidates
from chipfit.graph.coupling_groups import ChannelGroup, Member, kept_sides
from chipfit.graph.coupling_mask import silence_
from chipfit.graph.coupling_sides import narrow_side, side_sizes
from chipfit.graph.coupling_trace import arguments, evaluating
from chipfit.graph.run import output_tensors

#: Trials of one network; groups that are not verified by then are frozen.
TRIALS = 60
#: Largest difference that rounding explains, relative to the largest output, by type.
ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4}


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
    for group in search.settle(free):
        search.done[group.name] = group
    return [search.done.get(group.name, group) for group in groups]


class Trial:
    """Narrows a copy of a network in which every channel matters.

    Args:
        net: The network.
        example: What it is called with.
        double: Whether to compute in double precision where the network can.
    """

    def __init__(self, net: nn.Module, example: Any, double: bool) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self.count = 0
        self.meta = any(p.is_meta for p in net.parameters())
        self._net = copy.deepcopy(net)
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in net.parameters())
        if half:
            self._net.float()
        if not self.meta:
            self._stir()
        self._example = example
        self._sizes = side_sizes(self._net)
        self._original = self._start(double)

    def _start(self, double: bool) -> list[torch.Tensor]:
        """Return what the network computes, in double precision and on noise where it can."""
        given = arguments(self._net, self._example)
        noise = tree_map(self._noise, given)
        small = tree_map(_smaller, noise)
        for wide, arguments_ in (
            (double, small), (double, noise), (False, small), (False, noise), (False, given),
        ):  # fmt: skip
            net = copy.deepcopy(self._net).double() if wide else self._net
            self._given = tree_map(_double, arguments_) if wide else arguments_
            try:
                result = self._run(net)
            except Exception:  # it may look at its data, or insist on its size or type
                continue
            self._net = net
            return result
        return []

    def _noise(self, x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.dtype.is_floating_point or x.is_meta:
            return x
        return torch.randn(x.shape, generator=self._generator).to(x.dtype)

    @torch.no_grad()
    def _stir(self) -> None:
        """Draw parameters anew that are all equal, as fresh norms and layer scales are."""
        for parameter in self._net.parameters():
            flat = parameter.detach().flatten()
            if flat.numel() > 1 and bool((flat == flat[0]).all()):
                drawn = torch.rand(parameter.shape, generator=self._generator)
                scale = 0.5 if parameter.ndim < 2 or flat[0] else parameter.shape[1] ** -0.5
                parameter.copy_(scale * (drawn + 0.5).to(parameter.dtype))

    def _run(self, net: nn.Module) -> list[torch.Tensor]:
        positional, keywords = tree_map(_cloned, self._given)
        with torch.random.fork_rng(devices=[]), evaluating(net):
            torch.manual_seed(0)
            return output_tensors(net(*positional, **keywords))

    def failure(self, groups: Sequence[ChannelGroup]) -> str:
        """Return why narrowing ``groups`` at once is not exact, ``""`` where it is."""
        self.count += 1
        if not self._original:
            return "the network does not run on its copy"
        drawn = torch.Generator().manual_seed(1)
        kept = {}
        for i, group in enumerate(groups):  # no two the same share: equal halves would hide much
            count = group.channels - max(1, group.channels // 3 - i % 3)
            kept[group.name] = torch.randperm(group.channels, generator=drawn)[:count].tolist()
        sides = kept_sides(groups, kept, self._sizes)
        if not all(sides.values()):
            return "nothing is left of a layer"
        narrow = copy.deepcopy(self._net)
        try:
            for (module, side), stay in sides.items():
                narrow_side(narrow, module, side, torch.tensor(stay))
            mine = self._run(narrow)
        except Exception as error:  # the network's own code may raise anything
            text = str(error).strip().splitlines() or [type(error).__name__]
            return f"a narrower network fails: {text[0][:160]}"
        shapes = [x.shape for x in mine] == [x.shape for x in self._original]
        if not shapes:
            return "a narrower network has other outputs"
        if self.meta:
            return ""
        theirs = self._run(silence_(copy.deepcopy(self._net), sides))
        return "" if _close(mine, theirs) else "a narrower network computes something else"


def _double(x: Any) -> Any:
    floating = isinstance(x, torch.Tensor) and x.dtype.is_floating_point
    return x.double() if floating else x


def _smaller(x: Any) -> Any:
    """Return a corner of a large image: how channels go together does not depend on its size."""
    if not isinstance(x, torch.Tensor) or x.ndim != 4:
        return x
    height, width = (min(size, max(64, round(size / 128) * 32)) for size in x.shape[2:])
    return x[:, :, :height, :width]


def _cloned(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x


def _close(mine: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> bool:
    for a, b in zip(mine, theirs, strict=True):
        scale = float(b.abs().max()) if b.dtype.is_floating_point and b.numel() else 1.0
        limit = ROUNDING.get(a.dtype, 1e-2) * max(scale, 1e-30)
        if not bool(((a.double() - b.double()).abs() <= limit).all()):
            return False
    return True


class _Search:
    """Finds the attributes that groups need, in as few trials as it can."""

    def __init__(self, trial: Trial, found: Mapping[str, Candidates]) -> None:
        self._trial, self._found = trial, found
        self.done: dict[str, ChannelGroup] = {}

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
        return [*good, *bad]

    def _numbers(self, group: ChannelGroup) -> ChannelGroup:
        return replace(group, attributes=self._of(group).numbers)

    def _everything(self, group: ChannelGroup) -> ChannelGroup:
        own = self._of(group)
        return replace(group, attributes=(*own.numbers, *own.switches))

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
