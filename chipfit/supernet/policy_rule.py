# SPDX-License-Identifier: Apache-2.0
"""``PolicyRule``: logits as a policy over architectures that follows a reward (REINFORCE).

Williams, Machine Learning 8, 1992. ProxylessNAS (Cai et al., ICLR 2019, arXiv 1812.00332, section
3.3) has it beside the gates' gradient: nothing but the policy has to be differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chipfit.errors import BadInput
from chipfit.supernet.mixed_operation import untracked
from chipfit.supernet.mixture import OneHot
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import SearchState
from chipfit.tasks.base import Batch

Values = NDArray[np.float64]
#: ``reward(losses, rows)``: rewards ``(N,)``, higher is better, of architectures ``(N, choices)``,
#: given as option indices, by their losses ``(N,)`` on one batch.
Reward = Callable[[Values, NDArray[np.int64]], Values]
#: Least deviation of rewards that counts as a difference.
_SMALL = 1e-12


class PolicyRule(SearchRule):
    """Weights learn on one sampled path; logits by the rewards of sampled architectures.

    All architectures of a step are judged on the same batch, with its own batch statistics, which
    no running ones take in. The advantage of each is its reward less a baseline, divided by the
    deviation of the step's rewards; the division is ours: the strength of the step beside what the
    budget adds (:class:`~chipfit.supernet.pressure.Pressure`) then depends on no unit.

    Args:
        reward: Of architectures by their losses.
        samples: Architectures in a step; the paper's code takes 10.
        decay: Share by which the baseline follows the mean reward of a step; the paper's code has
            0.99, which leaves nearly no memory.

    Raises:
        BadInput: There are fewer than two samples, or ``decay`` is no share.
    """

    told: ClassVar[tuple[str, ...]] = ("reward",)

    def __init__(self, reward: Reward, samples: int = 10, decay: float = 0.99) -> None:
        super().__init__(OneHot(uniform=False))
        if samples < 2 or not 0 < decay <= 1:
            raise BadInput(
                f"a policy that learns from {samples} architectures, baseline at {decay}",
                "compare two or more",
            )
        self.reward, self.samples, self.decay = reward, samples, decay
        self.baseline: float | None = None

    def architecture_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the logits; return the mean loss of the sampled architectures."""
        supernet, noise = state.supernet, state.noise(1)
        left: list[list[int]] = []
        losses = np.zeros(self.samples)
        with torch.no_grad(), untracked(supernet):
            for i in range(self.samples):
                drawn = supernet.draw(self.relaxation, state.temperature, noise)
                left.append([drawn[choice.name].active[0] for choice in supernet.space])
                losses[i] = float(state.loss(batch))
        alive = [supernet.alive[choice.name] for choice in supernet.space]
        rows = np.array([[own[i] for own, i in zip(alive, r, strict=True)] for r in left], np.int64)
        advantages = torch.as_tensor(self._advantages(self.reward(losses, rows)))
        state.architecture_optimizer.zero_grad(set_to_none=True)
        loss = policy_loss(supernet.architecture_parameters(), torch.tensor(left), advantages)
        state.pressure(loss, supernet.probabilities()).backward()
        state.architecture_optimizer.step()
        state.pressure.update(supernet.probabilities())
        return float(losses.mean())

    def _advantages(self, rewards: Values) -> Values:
        mean = float(rewards.mean())
        old = mean if self.baseline is None else self.baseline
        self.baseline = old + self.decay * (mean - old)
        return (rewards - self.baseline) / max(float(rewards.std()), _SMALL)

    def facts(self) -> dict[str, Any]:
        """Return the baseline."""
        return {"baseline": self.baseline}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take back the baseline."""
        self.baseline = facts["baseline"]


def policy_loss(logits: Sequence[Tensor], rows: Tensor, advantages: Tensor) -> Tensor:
    """Return ``-mean(advantage * log p(row))``, whose gradient is REINFORCE's estimate.

    Where rows are drawn from the policy and advantages are rewards less a constant, its expected
    gradient is that of minus the expected reward.

    Args:
        logits: By choice, ``(options,)``; ``p`` is the product of their softmax.
        rows: ``(N, choices)`` option indices.
        advantages: ``(N,)``.
    """
    chosen = [torch.log_softmax(own, 0)[rows[:, c]] for c, own in enumerate(logits)]
    likelihood = torch.stack(chosen).sum(0)
    return -(advantages.to(likelihood.dtype) * likelihood).mean()
