# SPDX-License-Identifier: Apache-2.0
"""``BranchNetwork``: a network whose branches have gates, trained in RepNAS's three phases.

Zhang et al., "RepNAS: Searching for Efficient Re-parameterizing Blocks", 2021, arXiv 2109.03508.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from chipfit.blocks.rep_branches import RepBranches
from chipfit.errors import BadInput
from chipfit.rewrite.replay import replay
from chipfit.space.branches import BranchPlace
from chipfit.supernet.gated_block import input_statistics
from chipfit.supernet.top_k import TopKGates
from chipfit.train.randomness import generator

#: Branch that a layer has where nothing else is left of it.
FLOOR = "3x3"
_EPS = 1e-8


class BranchNetwork(nn.Module):
    """Weights and gates are trained on the same batches, in the same backward pass.

    In training mode every forward pass is a step of one of three phases: ``random`` (K branches of
    the network, drawn evenly), ``search`` (drawn by their logits, which Adam moves during the
    backward pass) and ``fixed`` (those of the K highest logits; batch norms forget what they saw
    before). Logits, moments and the step are buffers: a training that is cut off continues with
    them, and the optimiser of the weights does not touch them. In evaluation mode the K highest
    logits decide.

    Args:
        net: With ``rep_branches`` blocks that are not merged; it is trained in place.
        places: Where they stand.
        count: K, branches of the whole network that are executed.
        steps: Of the training; 1 or more.
        random_share: Share of the steps in the first phase.
        search_share: Share of the steps in the second phase.
        seed: Of the draws.
        rate: Adam's, for the logits.
        betas: Adam's.
        decay: L2 penalty of the logits at the start of the search phase; a half cosine to 0.
    """

    step: Tensor
    logits: Tensor
    first: Tensor
    second: Tensor

    def __init__(
        self,
        net: nn.Module,
        places: Sequence[BranchPlace],
        count: int,
        *,
        steps: int = 1,
        random_share: float = 0.1,
        search_share: float = 0.23,
        seed: int = 0,
        rate: float = 0.01,
        betas: tuple[float, float] = (0.5, 0.999),
        decay: float = 5e-4,
    ) -> None:
        super().__init__()
        self.net, self.places, self.steps = net, tuple(places), steps
        if min(random_share, search_share) < 0 or random_share + search_share >= 1:
            raise BadInput(
                f"random and search phase take {random_share} and {search_share} of the steps",
                "both together must leave some for the fixed phase",
            )
        self._search_end = min(steps - 1, round((random_share + search_share) * steps))
        self._random_end = min(self._search_end, round(random_share * steps))
        self._seed, self._rate, self._betas, self._decay = seed, rate, betas, decay
        ends = [0]
        for place in places:
            ends.append(ends[-1] + len(place.branches))
        layers = [tuple(range(a, b)) for a, b in itertools.pairwise(ends)]
        floor = [
            own[place.branches.index(FLOOR) if FLOOR in place.branches else 0]
            for own, place in zip(layers, places, strict=True)
        ]
        self.layers, self._top = layers, TopKGates(layers, floor, count)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        for name in ("logits", "first", "second"):
            self.register_buffer(name, torch.zeros(ends[-1]))

    @property
    def phase(self) -> str:
        """``random``, ``search`` or ``fixed``."""
        step = int(self.step)
        if step < self._random_end:
            return "random"
        return "search" if step < self._search_end else "fixed"

    def block(self, place: BranchPlace) -> RepBranches:
        """Return the block at a place."""
        found = self.net.get_submodule(place.module)
        assert isinstance(found, RepBranches)  # with_branches put it there
        return found

    def chosen(self) -> dict[str, tuple[str, ...]]:
        """Return by place the branches of the K highest logits."""
        values = self._top.fixed(self.logits).tolist()
        return {
            place.module: tuple(n for n, i in zip(place.branches, own, strict=True) if values[i])
            for place, own in zip(self.places, self.layers, strict=True)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map what the network maps; in training mode this is one more step."""
        if not self.training or self.phase == "fixed":
            if self.training and int(self.step) == self._search_end:
                self._forget_statistics()
            gates = self._top.fixed(self.logits)
        else:
            logits = self.logits.clone()
            if self.phase == "search":
                logits.requires_grad_().register_post_accumulate_grad_hook(self._move)
            gates = self._top.draw(logits, generator(self._seed, int(self.step)))
        for place, own in zip(self.places, self.layers, strict=True):
            self.block(place).gates = gates[own[0] : own[-1] + 1]
        if self.training:
            self.step += 1
        return self.net(x)

    def _forget_statistics(self) -> None:
        for module in self.net.modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                module.reset_running_stats()

    @torch.no_grad()
    def _move(self, logits: Tensor) -> None:
        """Take one step of Adam (Kingma and Ba, ICLR 2015, arXiv 1412.6980, algorithm 1)."""
        done = int(self.step) - self._random_end  # the step that this backward pass belongs to
        share = (done - 1) / (self._search_end - self._random_end)
        assert logits.grad is not None
        decay = self._decay * 0.5 * (1 + math.cos(math.pi * share))
        grad = logits.grad + decay * self.logits
        one, two = self._betas
        self.first.mul_(one).add_(grad, alpha=1 - one)
        self.second.mul_(two).addcmul_(grad, grad, value=1 - two)
        mean, square = self.first / (1 - one**done), self.second / (1 - two**done)
        self.logits.sub_(self._rate * mean / (square.sqrt() + _EPS))


@torch.no_grad()
def merged_network(net: nn.Module, trained: BranchNetwork, batches: Sequence[Tensor]) -> nn.Module:
    """Return ``net`` with the chosen branches of every place merged, and the trained weights.

    Equal to the trained network in evaluation mode, borders included. The batch norm behind each
    merged convolution has the statistics of its output, so that training can go on from there;
    without them a merged network hardly trains.

    Args:
        net: The network that places were found in; it is not changed.
        trained: After its training.
        batches: Inputs that the statistics are taken from, at least one.
    """
    chosen = trained.chosen()
    merged = replay(net, [place.swap(chosen[place.module]) for place in trained.places])
    inside = tuple(f"{place.module}." for place in trained.places)
    state = {n: v for n, v in trained.net.state_dict().items() if not n.startswith(inside)}
    biases: dict[str, Tensor] = {}
    for place in trained.places:
        block = trained.block(place)
        names = chosen[place.module]
        block.gates = torch.tensor([float(name in names) for name in place.branches])
        weight, bias = block.merged()
        norm = f"{place.module}.norm"
        new = merged.get_submodule(norm)
        assert isinstance(new, nn.BatchNorm2d)
        biases[norm] = bias
        # Until its statistics are known the norm adds the bias alone.
        state |= {f"{norm}.{n}": v for n, v in new.state_dict().items()}
        state |= {
            f"{place.module}.conv.weight": weight, f"{norm}.bias": bias,
            f"{norm}.running_var": torch.full_like(bias, 1 - new.eps),
        }  # fmt: skip
    merged.load_state_dict(state)
    statistics = input_statistics(merged, list(biases), list(batches))
    for name, (mean, variance) in statistics.items():
        known = merged.get_submodule(name)
        assert isinstance(known, nn.BatchNorm2d)
        values = {
            "running_mean": mean, "running_var": variance,
            "weight": (variance.double() + known.eps).sqrt(), "bias": biases[name] + mean.double(),
        }  # fmt: skip
        known.load_state_dict({**known.state_dict(), **values})
    return merged
