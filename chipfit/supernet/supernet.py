# SPDX-License-Identifier: Apache-2.0
"""``Supernet``: a network that holds all candidate operations of a space, with shared weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.blocks.registry import create_block
from chipfit.errors import BadInput
from chipfit.rewrite.replay import replay
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import BlockChoice, BlockSpace
from chipfit.supernet.mixed_operation import MixedOperation
from chipfit.supernet.mixture import Mixture, Relaxation
from chipfit.train.randomness import private_global_stream, seed_global_stream, stream_seed

#: Deviation of freshly drawn logits.
LOGITS_STD = 1e-3


class Supernet(nn.Module):
    """A copy of a network with a :class:`MixedOperation` at every place of its space.

    Logits, the architecture parameters, are apart from the weights. Places that one choice decides
    share its logits and, in every forward pass, its mixture.

    Args:
        net: The network; it is not changed. Operations that keep a place start from its weights.
        space: Its choices.
        seed: Of the weights of new operations, and of the logits.
        logits_std: Deviation of the first logits.

    Raises:
        BadInput: The network has no such place, or an operation cannot be built.
    """

    def __init__(
        self, net: nn.Module, space: BlockSpace, *, seed: int = 0, logits_std: float = LOGITS_STD
    ) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.space = space
        #: By choice, the indices of the operations that are left.
        self.alive = {c.name: tuple(range(len(c.operations))) for c in space}
        self._place_of = {place: (c.name, p) for c in space for p, place in enumerate(c.places)}
        with private_global_stream():
            for place, (name, p) in self._place_of.items():
                old = _module(self.net, place)
                mixed = self._mixed(space[name], p, old, seed)
                self.net.set_submodule(place, mixed.train(old.training))
            seed_global_stream(seed, stream_seed("logits"))
            # Names of choices hold dots, which parameters must not.
            self._logits = nn.ParameterList(
                nn.Parameter(logits_std * torch.randn(len(c.operations))) for c in space
            )

    def _mixed(self, choice: BlockChoice, p: int, old: nn.Module, seed: int) -> MixedOperation:
        """Return the candidates of a choice for its place ``p``, where ``old`` stands."""
        return MixedOperation(
            [
                drawn(o.swaps[p], stream_seed(seed, choice.places[p], o.name), old)
                if o.swaps
                else copy.deepcopy(old)
                for o in choice.operations
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map what the network maps, with the mixtures that were drawn last."""
        return self.net(x)

    def operation(self, place: str) -> MixedOperation:
        """Return what stands at a place."""
        found = self.net.get_submodule(place)
        assert isinstance(found, MixedOperation)  # the constructor put it there
        return found

    def logits(self, name: str) -> nn.Parameter:
        """Return the logits of a choice, ``(operations left,)``."""
        return self._logits[[c.name for c in self.space].index(name)]

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return the logits of all choices."""
        return list(self._logits)

    def weights(self) -> list[nn.Parameter]:
        """Return all other parameters that are trained."""
        return [p for p in self.net.parameters() if p.requires_grad]

    def draw(
        self, relaxation: Relaxation, temperature: float, generator: torch.Generator
    ) -> dict[str, Mixture]:
        """Draw the mixture of every choice for the next forward passes; return them."""
        found = {
            c.name: relaxation(self.logits(c.name), temperature, generator) for c in self.space
        }
        self.mix(found)
        return found

    def mix(self, mixtures: Mapping[str, Mixture]) -> None:
        """Use the given mixtures by choice; their indices count the operations that are left."""
        for place, (name, _) in self._place_of.items():
            if name in mixtures:
                self.operation(place).mixture = mixtures[name]

    def fix(self, architecture: Mapping[str, str]) -> None:
        """Let one operation per choice run.

        Raises:
            BadInput: A choice has no such operation, or no longer.
        """
        self.mix({n: Mixture((self._position(n, o),)) for n, o in architecture.items()})

    def probabilities(self) -> list[Tensor]:
        """Return by choice the probability of every operation, 0 for those that are gone.

        Differentiable in the logits, ``(operations,)`` each, in double precision.
        """
        found = []
        for choice in self.space:
            own = torch.softmax(self.logits(choice.name).double(), 0)
            whole = own.new_zeros(len(choice.operations))
            found.append(whole.index_put((torch.tensor(self.alive[choice.name]),), own))
        return found

    def most_probable(self) -> dict[str, str]:
        """Return the architecture of the largest logits."""
        rows = [int(p.argmax()) for p in self.probabilities()]
        return {c.name: c.operations[i].name for c, i in zip(self.space, rows, strict=True)}

    def prune(self, name: str, keep: Sequence[str]) -> None:
        """Delete all operations of a choice but those named, with weights and logits.

        Optimisers still hold the old logits and weights: make them anew.

        Raises:
            BadInput: Nothing would be left, or an operation is not there.
        """
        places = sorted(self._position(name, operation) for operation in keep)
        if not places:
            raise BadInput(f"choice {name} needs an operation to keep")
        index = [c.name for c in self.space].index(name)
        with torch.no_grad():
            self._logits[index] = nn.Parameter(self.logits(name)[places].clone())
        for place in self.space[name].places:
            self.operation(place).keep(places)
        self.alive[name] = tuple(self.alive[name][i] for i in places)

    def structure(self) -> dict[str, Any]:
        """Return, as JSON, which operations are left; :meth:`restructure` takes it."""
        return {name: list(own) for name, own in self.alive.items()}

    def restructure(self, structure: Mapping[str, Sequence[int]]) -> None:
        """Prune a fresh supernet as another one was pruned."""
        for name, own in structure.items():
            if len(own) < len(self.alive[name]):
                self.prune(name, [self.space[name].operations[i].name for i in own])

    def derive(self, net: nn.Module, architecture: Mapping[str, str]) -> nn.Module:
        """Return the network of an architecture with inherited weights, as a plain module.

        Batch norms want :func:`~chipfit.train.batchnorm.recalibrate_batchnorm` afterwards.

        Args:
            net: The network that the supernet was made from.
            architecture: An operation name by choice.

        Raises:
            BadInput: It is no architecture of what is left of the space.
        """
        derived = replay(net, self.space.edits(architecture))
        inside = tuple(f"{place}." for place in self._place_of)
        state = {n: v for n, v in self.net.state_dict().items() if not n.startswith(inside)}
        for place, (name, _) in self._place_of.items():
            chosen = self._inherited(place, name, architecture[name])
            state |= {f"{place}.{n}": v for n, v in chosen.items()}
        derived.load_state_dict(state)
        return derived

    def _inherited(self, place: str, name: str, operation: str) -> Mapping[str, Tensor]:
        """Return the weights that an operation of a choice has at a place."""
        return self.operation(place).candidates[self._position(name, operation)].state_dict()

    def _position(self, name: str, operation: str) -> int:
        names = [o.name for o in self.space[name].operations]
        left = [names[i] for i in self.alive[name]]
        if operation not in left:
            raise BadInput(f"choice {name} has no operation {operation!r}", f"left: {left}")
        return left.index(operation)


def _module(net: nn.Module, place: str) -> nn.Module:
    try:
        return net.get_submodule(place)
    except AttributeError as error:
        raise BadInput(f"the network has no module {place!r} of its search space") from error


def drawn(swap: Swap, seed: int, old: nn.Module) -> nn.Module:
    """Return a swap's block with weights of its own seed."""
    seed_global_stream(seed)
    new = create_block(
        swap.block, swap.in_channels, swap.out_channels, swap.stride, **swap.options
    )  # fmt: skip
    like = next(old.parameters(), None)
    return new.to(like.device, like.dtype) if like is not None else new
