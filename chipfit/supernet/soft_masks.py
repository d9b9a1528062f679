# SPDX-License-Identifier: Apache-2.0
"""``SoftMasks``: a network in training whose pruned channels go on learning and can come back.

Humble et al., "Soft Masking for Cost-Constrained Channel Pruning", ECCV 2022, arXiv 2211.02206:
a channel is masked where it is *read*, in the input side of every layer that reads it, so that the
layers that make it stay as they are; the gradient passes the mask as if it were not there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from chipfit.errors import BadInput
from chipfit.graph.channel_readers import READING, channel_readers
from chipfit.graph.channels import ChannelGroup, Member
from chipfit.supernet.soft_mask_norm import keep_channels, mask_layer_norm
from chipfit.supernet.soft_mask_parts import ChannelMask, NormScale, masks_of, stored

#: ``soft``: gradients pass the mask. ``hard``: those of masked weights are zero. ``permanent``:
#: masked weights are set to zero as well, and a channel that went never returns.
MODES = ("soft", "hard", "permanent")
#: What a batch norm behind a masked layer is scaled by: the share of input channels that are kept,
#: their share of the importance, or nothing.
SCALINGS = ("channels", "importance", "none")
#: Modules of a group that pass each of its channels on by itself, or are masked.
_MASKABLE = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.PReLU)


def unmaskable(net: nn.Module, group: ChannelGroup) -> str:
    """Return why zeroed weights would not act like removed channels; ``""`` where they do."""
    modules = dict(net.named_modules())
    made = {member.module for member in group.members if member.side == "out"}
    for member in group.members:
        module = modules.get(member.module)
        if module is not None and not isinstance(module, _MASKABLE):
            return f"{member.module} is a {type(module).__name__}"
        if isinstance(module, nn.Conv2d) and module.groups > 1 and member.module not in made:
            return f"{member.module} is a grouped convolution"
    return "" if channel_readers(net, group) else "no layer reads or makes its channels"


class SoftMasks:
    """Masks on a copy of a network, all open at first.

    Which channels are kept, and the importance that a method accumulates, are buffers of the
    network, so that its state dictionary says everything; it remains one of its own class.

    Args:
        net: The network; it is not changed.
        groups: Channel groups that may get narrower.
        mode: One of :data:`MODES`.
        scaling: One of :data:`SCALINGS`.
        norms: The batch norm directly behind a dense layer, by name of the layer.

    Raises:
        BadInput: Mode or scaling is unknown, or a group cannot be masked.
    """

    def __init__(
        self, net: nn.Module, groups: Sequence[ChannelGroup], *, mode: str = "soft",
        scaling: str = "channels", norms: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        if mode not in MODES or scaling not in SCALINGS:
            raise BadInput(
                f"soft masks: no mode {mode!r} with scaling {scaling!r}",
                f"modes: {', '.join(MODES)}; scalings: {', '.join(SCALINGS)}",
            )
        self._plain, self.net = net, copy.deepcopy(net)
        self.groups, self.mode, self.scaling = tuple(groups), mode, scaling
        self.readers = {group.name: self._readers(group) for group in groups}
        self._places = sorted({(m.module, m.side) for own in self.readers.values() for m in own})
        #: Layers that read masked channels, and the batch norms behind them.
        self.norms = {
            layer: norm
            for layer, norm in (norms or {}).items()
            if layer in {m.module for own in self.readers.values() for m in own if m.side == "in"}
            and scaling != "none" and self.net.get_submodule(norm).weight is not None
        }  # fmt: skip
        self._layer_norms: dict[str, list[tuple[int, Member]]] = {}
        self._put_on()

    def keep(self, kept: Mapping[str, Sequence[int]]) -> int:
        """Mask all channels but these; groups that are not named stay as they are.

        Returns:
            The number of channels that were masked before and are not any more.

        Raises:
            BadInput: Nothing of a group is kept, or in mode ``permanent`` one would return.
        """
        revived = 0
        for number, group in enumerate(self.groups):
            if group.name not in kept:
                continue
            now = torch.zeros_like(self._kept(number))
            now[torch.tensor(sorted(kept[group.name]), dtype=torch.int64)] = True
            back = int((now & ~self._kept(number)).sum())
            if not bool(now.any()) or (back and self.mode == "permanent"):
                raise BadInput(f"group {group.name}: channels {tuple(kept[group.name])} cannot be"
                               f" kept, {back} of them are gone for good")  # fmt: skip
            revived += back
            self._kept(number).copy_(now)
        self._mask()
        return revived

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """The channels that are not masked, by group name, ascending."""
        return {
            group.name: tuple(self._kept(number).nonzero().flatten().tolist())
            for number, group in enumerate(self.groups)
        }

    @property
    def importance(self) -> dict[str, Tensor]:
        """Buffers ``(channels,)`` in double precision for a method's use, zero at first."""
        return {g.name: getattr(self.net, f"soft_importance_{i}")
                for i, g in enumerate(self.groups)}  # fmt: skip

    def weights(self) -> dict[tuple[str, str], Tensor]:
        """Return the masked parameters as the optimizer sees them, by module and name."""
        return {
            (place, name): stored(self.net.get_submodule(place), name)
            for place, side in self._places
            for name in READING[side]
            if getattr(self._plain.get_submodule(place), name) is not None
        }

    @torch.no_grad()
    def decay_(self, factor: float) -> None:
        """Add ``factor * (1 - M) * W`` to the gradients of masked weights (SR-STE's decay).

        Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch",
        ICLR 2021, arXiv 2102.04010, section 3.2.
        """
        for (module, name), weight in self.weights().items():
            if weight.grad is not None:
                weight.grad.addcmul_(1.0 - self._spread(module, name), weight, value=factor)

    @torch.no_grad()
    def finished(self) -> nn.Module:
        """Return the network without masks and scales: both are multiplied into its weights.

        Slicing it to :attr:`kept` gives a network that computes what the masked one does.
        """
        # PyTorch's own way to take parametrisations off breaks all copies of the module.
        net = copy.deepcopy(self._plain)
        state = {}
        for key in net.state_dict():
            place, _, name = key.rpartition(".")
            state[key] = getattr(self.net.get_submodule(place), name)
        net.load_state_dict(state)
        return net.train(self.net.training)

    def _readers(self, group: ChannelGroup) -> tuple[Member, ...]:
        reason = unmaskable(self.net, group)
        if reason:
            raise BadInput(f"group {group.name} cannot be masked: {reason}")
        return channel_readers(self.net, group)

    def _kept(self, number: int) -> Tensor:
        return getattr(self.net, f"soft_kept_{number}")

    def _put_on(self) -> None:
        straight, modules = self.mode == "soft", dict(self.net.named_modules())
        for number, group in enumerate(self.groups):
            self.net.register_buffer(f"soft_kept_{number}", torch.ones(group.channels).bool())
            self.net.register_buffer(
                f"soft_importance_{number}", torch.zeros(group.channels, dtype=torch.float64)
            )
            for member in group.members:
                if isinstance(modules.get(member.module), nn.LayerNorm):
                    self._layer_norms.setdefault(member.module, []).append((number, member))
        for place, side in self._places:
            module = self.net.get_submodule(place)
            for name in READING[side]:
                if getattr(module, name) is not None:
                    mask = ChannelMask(stored(module, name), 1 if side == "in" else 0, straight)
                    parametrize.register_parametrization(module, name, mask)
        for norm in set(self.norms.values()):
            module = self.net.get_submodule(norm)
            gamma = module.weight
            assert isinstance(gamma, Tensor)
            parametrize.register_parametrization(module, "weight", NormScale(gamma))
        for norm in self._layer_norms:
            mask_layer_norm(self.net.get_submodule(norm))  # type: ignore[arg-type]

    @torch.no_grad()
    def _mask(self) -> None:
        """Bring masks and scales in line with the buffers."""
        for (place, name), weight in self.weights().items():
            for part in masks_of(self.net.get_submodule(place), name):
                part.mask.copy_(self._along(place, part.axis))
            if self.mode == "permanent":
                weight.mul_(self._spread(place, name))
        for layer, norm in self.norms.items():
            module = self.net.get_submodule(norm)
            for scale in module.parametrizations["weight"]:  # type: ignore[index]
                if isinstance(scale, NormScale):
                    scale.scale.fill_(self._share(layer))
        for norm, places in self._layer_norms.items():
            module = self.net.get_submodule(norm)
            assert isinstance(module, nn.LayerNorm)
            keep_channels(module, _gather(places, self._kept, module.normalized_shape[-1]))

    def _along(self, place: str, axis: int) -> Tensor:
        """Return 0 for every index of a reader's side that belongs to a masked channel, else 1."""
        size = stored(self.net.get_submodule(place), "weight").shape[axis]
        return _gather(self._reading(place, "in" if axis == 1 else "out"), self._kept, size)

    def _reading(self, place: str, side: str) -> list[tuple[int, Member]]:
        return [
            (number, member)
            for number, group in enumerate(self.groups)
            for member in self.readers[group.name]
            if (member.module, member.side) == (place, side)
        ]

    def _spread(self, place: str, name: str) -> Tensor:
        module = self.net.get_submodule(place)
        mask: Tensor | float = 1.0
        for part in masks_of(module, name):
            mask = mask * part.spread(stored(module, name))
        return torch.as_tensor(mask)

    def _share(self, layer: str) -> float:
        """Return what of a layer's input is kept, in channels or in importance, up to 1."""
        mask = self._along(layer, 1).double()
        if self.scaling == "channels":
            return float(mask.mean())
        worth = torch.zeros_like(mask)
        known = torch.zeros_like(mask)
        for number, member in self._reading(layer, "in"):
            index = torch.tensor(member.index)
            own = getattr(self.net, f"soft_importance_{number}").cpu() / index.shape[1]
            worth[index], known[index] = own[:, None].expand(index.shape), 1.0
        total = float(worth.sum())
        lost = 1.0 - float((worth * mask).sum()) / total if total > 0 else 0.0
        # Inputs of groups that do not get narrower have no importance: they count as channels.
        return 1.0 - lost * float(known.mean())


def _gather(
    places: Sequence[tuple[int, Member]], kept: Callable[[int], Tensor], size: int
) -> Tensor:
    """Return 1 for every index but those of masked channels, ``(size,)``."""
    found = torch.ones(size)
    for number, member in places:
        # Two groups may own one index, as heads and head dimensions do: it stays where both say so.
        found[torch.tensor(member.index)] *= kept(number).cpu()[:, None].float()
    return found
