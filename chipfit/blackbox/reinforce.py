# SPDX-License-Identifier: Apache-2.0
"""REINFORCE: a policy over architectures that follows the reward.

Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning", Machine Learning 8, 1992. MnasNet (Tan et al., CVPR 2019, arXiv 1807.11626) searches so
with a recurrent controller; as in ProxylessNAS (Cai et al., ICLR 2019, arXiv 1812.00332, section
3.3) the policy here is a categorical distribution of its own for every choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.blackbox.front import Direction
from chipfit.blackbox.order import Row
from chipfit.blackbox.strategy import Evaluation, Strategy
from chipfit.errors import BadInput

#: Samples in a row that are known or pending, before a random architecture is asked for instead.
TRIES = 32
#: Of Adam, whose second moment makes the step independent of the unit of the reward.
BETAS = (0.9, 0.999)
EPSILON = 1e-12


def mnasnet_reward(
    accuracy: float, cost: float, limit: float, within: float = -0.07, beyond: float = -0.07
) -> float:
    """Return ``accuracy * (cost / limit) ** w``, which is to be maximised.

    MnasNet, section 3.1, equations 2 and 3: ``w`` is ``within`` up to the limit and ``beyond``
    above it. Both -0.07 is the paper's soft constraint, 0 and -1 its hard one.

    Args:
        accuracy: Positive.
        cost: In the unit of ``limit``.
        limit: The budget.
        within: Exponent up to the limit.
        beyond: Exponent above it.

    Raises:
        BadInput: A cost or limit is not positive.
    """
    if cost <= 0 or limit <= 0:
        raise BadInput(f"a reward of cost {cost} at limit {limit}", "both must be positive")
    return float(accuracy * (cost / limit) ** (within if cost <= limit else beyond))


class Reinforce(Strategy):
    """Samples architectures from independent categorical distributions, one per choice.

    The gradient of the expected reward is estimated as the mean, over ``batch`` architectures, of
    ``(reward - baseline) * d log p / d logits``; the baseline is a moving average of rewards; Adam
    takes the step. A sample that was told before teaches with the reward it has, at no evaluation.
    Where 32 samples in a row were known, as once the policy is certain, a random architecture is
    asked for; as the policy did not draw it, the policy does not learn from it. Both are ours.

    Constraints have no place here but in the reward (:func:`mnasnet_reward`).

    Args:
        sizes: Numbers of options of all choices.
        directions: One objective, the reward.
        seed: Of everything random.
        learning_rate: Of Adam, per step.
        batch: Architectures of one step; ProxylessNAS's code takes 10.
        decay: Of the baseline, per architecture.

    Raises:
        BadInput: There are several objectives, or a setting is out of range.
    """

    name = "REINFORCE"

    def __init__(
        self,
        sizes: Sequence[int],
        directions: Sequence[Direction] = ("max",),
        seed: int = 0,
        learning_rate: float = 0.05,
        batch: int = 1,
        decay: float = 0.9,
    ) -> None:
        super().__init__(sizes, directions, seed)
        if learning_rate <= 0 or batch < 1 or not 0 <= decay < 1:
            raise BadInput(f"learning rate {learning_rate}, batch {batch}, decay {decay}")
        self.learning_rate, self.batch, self.decay = learning_rate, batch, decay
        self.baseline: float | None = None
        shape = (len(self.sizes), max(self.sizes))
        absent = np.arange(shape[1]) >= np.array(self.sizes)[:, None]
        self._logits = np.where(absent, -np.inf, 0.0)
        self._moments = np.zeros((2, *shape))
        self._steps = 0
        self._learning: list[tuple[Row, float]] = []
        self._strays: dict[Row, None] = {}

    @property
    def probabilities(self) -> list[NDArray[np.float64]]:
        """The policy: of each choice, the probabilities of its options."""
        return [own[:size] for own, size in zip(self._policy(), self.sizes, strict=True)]

    def most_probable(self) -> Row:
        """Return the architecture of the likeliest option everywhere."""
        return tuple(self._logits.argmax(axis=1).tolist())

    def tell(self, row: Sequence[int], values: Sequence[float], violation: float = 0.0) -> None:
        """Take in a reward.

        Raises:
            BadInput: There is a violation, which this strategy cannot use; else as in
                :meth:`Strategy.tell`.
        """
        if violation:
            raise BadInput("REINFORCE has no constraints", "put them into the reward")
        super().tell(row, values)

    def _propose(self) -> Row | None:
        for _ in range(TRIES):
            row = self._sample()
            if row in self._told:
                self._follow(self._told[row])
            elif row not in self._pending:
                return row
        stray = self._fresh()
        if stray is not None:
            self._strays[stray] = None
        return stray

    def _sample(self) -> Row:
        below = self._policy().cumsum(axis=1)
        drawn = np.array([[self._rng.random()] for _ in self.sizes]) * below[:, -1:]
        return tuple((below > drawn).argmax(axis=1).tolist())

    def _learn(self, evaluation: Evaluation) -> None:
        if evaluation.row in self._strays:
            del self._strays[evaluation.row]
        else:
            self._follow(evaluation)

    def _follow(self, evaluation: Evaluation) -> None:
        """Take in a sample of the policy; every ``batch`` of them take one step."""
        value = evaluation.values[0]
        self._learning.append((evaluation.row, value if self.directions[0] == "max" else -value))
        if len(self._learning) < self.batch:
            return
        rewards = np.array([reward for _, reward in self._learning])
        if self.baseline is None:
            self.baseline = float(rewards.mean())
        gradient = np.zeros(self._logits.shape)
        for (row, _), advantage in zip(self._learning, rewards - self.baseline, strict=True):
            gradient += advantage * self.score(row) / self.batch
        for reward in rewards:
            self.baseline = float(self.decay * self.baseline + (1 - self.decay) * reward)
        self._learning = []
        self._ascend(gradient)

    def score(self, row: Row) -> NDArray[np.float64]:
        """Return the gradient of ``log p(row)`` by the logits, ``(choices, most options)``."""
        found = -self._policy()
        found[np.arange(len(row)), row] += 1.0
        return found

    def _ascend(self, gradient: NDArray[np.float64]) -> None:
        self._steps += 1
        for moment, beta, value in zip(self._moments, BETAS, (gradient, gradient**2), strict=True):
            moment *= beta
            moment += (1 - beta) * value
        first, second = (
            moment / (1 - beta**self._steps)
            for moment, beta in zip(self._moments, BETAS, strict=True)
        )
        self._logits += self.learning_rate * first / (np.sqrt(second) + EPSILON)

    def _policy(self) -> NDArray[np.float64]:
        """Return ``(choices, most options)``; 0 where a choice has fewer."""
        weights = np.exp(self._logits - self._logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def _settings(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "batch": self.batch, "decay": self.decay}

    def _own_state(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline, "steps": self._steps, "moments": self._moments.tolist(),
            # Minus infinity, of options that are not there, is no JSON.
            "logits": [own[:size].tolist() for own, size in zip(self._logits, self.sizes)],
            "learning": [[list(row), reward] for row, reward in self._learning],
            "strays": [list(row) for row in self._strays],
        }  # fmt: skip

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self.baseline, self._steps = state["baseline"], int(state["steps"])
        for own, logits in zip(self._logits, state["logits"], strict=True):
            own[: len(logits)] = logits
        self._moments = np.array(state["moments"], np.float64)
        self._learning = [(tuple(row), float(reward)) for row, reward in state["learning"]]
        self._strays = {tuple(row): None for row in state["strays"]}
