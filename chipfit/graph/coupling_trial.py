# SPDX-License-Identifier: Apache-2.0
"""One trial: narrow a copy of a network in which every channel matters, and compare."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from chipfit.graph.coupling_groups import ChannelGroup, kept_sides
from chipfit.graph.coupling_mask import silence_
from chipfit.graph.coupling_sides import narrow_side, side_sizes
from chipfit.graph.coupling_trace import arguments, evaluating
from chipfit.graph.run import output_tensors

#: Largest difference that rounding explains, relative to the largest output, by type.
ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4}


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
