# SPDX-License-Identifier: Apache-2.0
"""``GateRule``: ProxylessNAS's steps, in which one path at a time is in memory.

Cai, Zhu and Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
ICLR 2019, arXiv 1812.00332, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from chipfit.blocks.skip import is_absent
from chipfit.space.from_network import SKIP
from chipfit.supernet.mixture import BinaryGates, Mixture, OneHot
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import SearchState
from chipfit.supernet.supernet import Supernet
from chipfit.tasks.base import Batch


class GateRule(SearchRule):
    """Weights learn on one sampled path; logits by the gates of the paths that are compared.

    After a step of the logits only the odds between the compared paths have changed: the
    probabilities of all others are what they were (:func:`restore_others`). As in the paper's code
    a choice whose active path computes nothing is left alone in that step.

    The expected cost is the exact one, over all paths. Its gradient is the paper's code's: it goes
    to the compared paths by their probabilities among themselves, so that it weighs against the
    gates' gradient as it does there.

    Args:
        paths: Compared in one step of the logits; 0 compares all, 2 is the paper's.
    """

    def __init__(self, paths: int = 2) -> None:
        super().__init__(BinaryGates(paths), OneHot(uniform=False))

    def architecture_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the logits on a batch of the second half; return the task's loss."""
        supernet = state.supernet
        drawn = supernet.draw(self.relaxation, state.temperature, state.noise(1))
        state.architecture_optimizer.zero_grad(set_to_none=True)
        loss = state.loss(batch)
        state.pressure(loss, compared_probabilities(supernet, drawn)).backward()
        before = {name: supernet.logits(name).detach().clone() for name in drawn}
        for name, mixture in drawn.items():
            if computes_nothing(supernet, name, mixture.active[0]):
                supernet.logits(name).grad = None  # the optimiser passes over it
        state.architecture_optimizer.step()
        for name, mixture in drawn.items():
            restore_others(supernet.logits(name), before[name], mixture.compared)
        state.pressure.update(supernet.probabilities())
        return loss.item()


@torch.no_grad()
def restore_others(logits: Tensor, before: Tensor, compared: Sequence[int]) -> None:
    """Undo what a step did to the probabilities of paths that were not compared.

    Their logits are put back, and those of the compared paths are shifted by one number, such that
    the compared paths have together the probability that they had: ``a_i -= log(sum_c exp a_c) -
    log(sum_c exp b_c)``, where ``b`` are the logits before.

    Args:
        logits: After the step, ``(paths,)``; changed in place.
        before: Before the step.
        compared: Indices of the paths that the step is about.
    """
    if len(compared) == len(logits):
        return
    own = list(compared)
    moved = logits[own] - (torch.logsumexp(logits[own], 0) - torch.logsumexp(before[own], 0))
    logits.copy_(before)
    logits[own] = moved


def compared_probabilities(supernet: Supernet, drawn: Mapping[str, Mixture]) -> list[Tensor]:
    """Return the probabilities of all operations, differentiable in the compared gates alone.

    The values are those of :meth:`Supernet.probabilities`; the gradient is that of the weights of
    the compared paths, which sum to 1 among themselves.
    """
    found = []
    for choice, p in zip(supernet.space, supernet.probabilities(), strict=True):
        mixture = drawn[choice.name]
        assert mixture.weights is not None  # gates have weights
        own = mixture.weights.to(p.dtype)
        alive = supernet.alive[choice.name]
        index = torch.tensor([alive[i] for i in mixture.compared])
        found.append(p.detach().index_add(0, index, own - own.detach()))
    return found


def computes_nothing(supernet: Supernet, name: str, index: int) -> bool:
    """Tell whether an operation of a choice is ``none``, or the ``skip`` that drops a block.

    Beside a shortcut they are the paper's zero operation; the identity on an edge of a cell is not.

    Args:
        supernet: Of the choice.
        name: Of the choice.
        index: Of the operation, among those that are left.
    """
    choice = supernet.space[name]
    operation = choice.operations[supernet.alive[name][index]]
    return operation.name == SKIP or all(
        is_absent(supernet.operation(place).candidates[index]) for place in choice.places
    )
