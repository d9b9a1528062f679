# SPDX-License-Identifier: Apache-2.0
"""``Scaler``: the best widths and depths of a network's stages, without training.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562, section on RAN-i:
networks of equal NN-Mass pass gradients alike and reach similar accuracy, so a network may become
narrower and deeper. The paper multiplies all widths by one factor and all depths by another; how it
picked them is not said, and :meth:`Scaler.uniform` is our reconstruction. The search over widths
and depths of every stage is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.methods.scaling_prices import NN_MASS, ScalingPricer
from chipfit.methods.scaling_search import Answer, Question, solve
from chipfit.space.chain import Chain, Figure, Shape, fit_chain
from chipfit.space.scaling import ScalingBounds, coarse_grid, fine_grid

#: Blocks of each stage of the networks that tell what everything costs; what is beyond repeats.
BASE_DEPTH = 2
#: Widths of a stage in the first round: many where figures cost nothing, few where each is compiled
#: or measured. Later rounds look between those that did best.
POINTS_MODELLED, POINTS_PRICED = 16, 5
#: Widths of a stage whose interaction with the next stage's is priced; the interaction is a product
#: of the two nearly everywhere, so two widths tell it.
PAIR_POINTS_PRICED = 2
#: How far figures of a chain may be off where they are whole numbers.
_EXACT = 1e-9
#: Steps of the multiplier in the paper's rule.
_SCAN = 16


@dataclass(frozen=True)
class Goal:
    """What a scaling has to be.

    Args:
        minimise: Name of a figure, for instance ``latency_ms``; ``""`` maximises NN-Mass.
        at_least: Lower bounds by name, for instance of ``nn_mass`` and ``non_linear_units``.
        at_most: Upper bounds by name.
        price: What breaks ties between networks of equal mass.
    """

    minimise: str = ""
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    price: str = "macs"

    def met(self, figures: Mapping[str, float]) -> bool:
        """Return whether all bounds hold; they are inclusive."""
        return all(figures[name] >= low * (1 - 1e-12) for name, low in self.at_least.items()) and (
            all(figures[name] <= high * (1 + 1e-12) for name, high in self.at_most.items())
        )

    def rank(self, figures: Mapping[str, float]) -> tuple[float, float]:
        """Return what the best network has least of."""
        if self.minimise:
            return figures[self.minimise], -figures[NN_MASS]
        return -figures[NN_MASS], figures[self.price]

    def __str__(self) -> str:
        lows = [f"{name} >= {value:,.6g}" for name, value in sorted(self.at_least.items())]
        highs = [f"{name} <= {value:,.6g}" for name, value in sorted(self.at_most.items())]
        return " and ".join(lows + highs)


class Scaler:
    """Answers every :class:`Goal` for one network.

    Args:
        pricer: Of the network.
        bounds: Which widths and depths there are.
        points: Widths of a stage in the first round; ``None`` for a number that suits the target.
    """

    def __init__(
        self, pricer: ScalingPricer, bounds: ScalingBounds, points: int | None = None
    ) -> None:
        self.pricer, self.bounds = pricer, bounds
        modelled = pricer.target.provenance == "modelled"
        self._points = points or (POINTS_MODELLED if modelled else POINTS_PRICED)
        self._pair_points = None if modelled else PAIR_POINTS_PRICED
        self._limits = bounds.widths(pricer.widths)
        self._depths = tuple(bounds.depths(pricer.depths))
        self._chains: dict[tuple[tuple[int, ...], ...], Chain] = {}

    def best(self, goal: Goal, count: int = 1) -> list[Answer]:
        """Return the best networks of all widths and depths within the bounds, best first.

        The integer program is solved to optimality. Where there are more widths than ``points``,
        it is solved on every second, fourth, ... of them first, and then between the best.

        Raises:
            InfeasibleBudget: No network meets the goal; the message says what can be reached.
            BadInput: The network's figures do not add up over its stages.
        """
        step = self.bounds.step
        pairs = [coarse_grid(low, high, step, self._points) for low, high in self._limits]
        answers: list[Answer] = []
        while True:
            grids, strides = [grid for grid, _ in pairs], [stride for _, stride in pairs]
            answers = self._solve(self._chain(grids), goal, count)
            if all(stride <= step for stride in strides):
                return answers
            pairs = [
                fine_grid([a.widths[s] for a in answers[:2]], low, high, strides[s], step)
                for s, (low, high) in enumerate(self._limits)
            ]

    def uniform(self, goal: Goal, count: int = 1) -> list[Answer]:
        """Return the best networks with one factor for all widths and one for all depths.

        The paper's rule (our reconstruction): for every factor of the widths, the smallest factor
        of the depths that meets the goal, or the largest where mass is maximised; then the best.

        Raises:
            InfeasibleBudget: No such network meets the goal.
        """
        found: dict[Shape, Answer] = {}
        ladder = self._depth_ladder()
        for widths in self._width_ladder():
            depths = _first(ladder, self._enough(goal, widths), largest=not goal.minimise)
            if depths is not None:
                figures = self.pricer.figures([(widths, depths)])[0]
                if goal.met(figures):
                    found[widths, depths] = Answer(widths, depths, figures)
        if not found:
            raise InfeasibleBudget(
                f"no factors of widths and depths meet {goal}",
                "widen the bounds (width_cap, depth_cap, width_floor), or ask for less",
            )
        return sorted(found.values(), key=lambda a: goal.rank(a.figures))[:count]

    def _chain(self, grids: Sequence[tuple[int, ...]]) -> Chain:
        key = tuple(grids)
        if key not in self._chains:
            stages = range(len(grids))
            low, high = [[limit[end] for limit in self._limits] for end in (0, 1)]
            base = (BASE_DEPTH,) * len(grids)
            deeper = [tuple(d + (s == i) for i, d in enumerate(base)) for s in stages]
            for depths in (tuple(d + 1 for d in base), base, *deeper):
                self.pricer.learn(depths, low, high)
            chain = fit_chain(self.pricer.figures, grids, base, self._pair_points)
            if self._pair_points is not None:
                # Only prices are interpolated: bounds on mass and units have to hold exactly.
                exact = fit_chain(self.pricer.scores, grids, base)
                chain = replace(chain, figures={**chain.figures, **exact.figures})
            self._check(chain)
            self._chains[key] = chain
        return self._chains[key]

    def _check(self, chain: Chain) -> None:
        """Refuse a network whose figures are not what its stages add up to."""
        widths = tuple(grid[-1 if s % 2 else 0] for s, grid in enumerate(chain.grids))
        depths = tuple(high for _, high in self._depths)
        wanted = self.pricer.scores([(widths, depths)])[0]
        for name in (NN_MASS, "macs"):
            if abs(chain.value(name, widths, depths) / max(wanted[name], 1.0) - 1) > _EXACT:
                raise BadInput(
                    f"{type(self.pricer.net).__name__}: a block of a stage does not cost the same "
                    f"as the next, so {name} does not add up over its stages",
                    "use rule=uniform, which tries whole networks",
                )

    def _solve(self, chain: Chain, goal: Goal, count: int) -> list[Answer]:
        name, sign = (goal.minimise, 1) if goal.minimise else (NN_MASS, -1)
        question = Question(name, self._depths, goal.at_least, goal.at_most, sign)
        answers = solve(chain, question, count)
        if not answers:
            raise self._infeasible(chain, goal)
        if goal.minimise:
            return answers
        # Of networks of equal mass, the cheapest.
        return [self._cheapest_alike(chain, goal, answer) for answer in answers]

    def _cheapest_alike(self, chain: Chain, goal: Goal, answer: Answer) -> Answer:
        low = {**goal.at_least, NN_MASS: answer.figures[NN_MASS]}
        cut = Chain(
            tuple((width,) for width in answer.widths), chain.base_depths,
            {name: _only(chain, name, answer.widths) for name in chain.figures},
        )  # fmt: skip
        return solve(cut, Question(goal.price, self._depths, low, goal.at_most))[0]

    def _infeasible(self, chain: Chain, goal: Goal) -> InfeasibleBudget:
        reach = []
        for name in goal.at_least:
            most = solve(chain, Question(name, self._depths, {}, goal.at_most, -1))
            reach += [f"the most {name} is {most[0].figures[name]:,.6g}"] if most else []
        for name in goal.at_most:
            least = solve(chain, Question(name, self._depths))
            reach += [f"the least {name} is {least[0].figures[name]:.4g}"] if least else []
        return InfeasibleBudget(
            f"no widths and depths within the bounds meet {goal}: {', '.join(reach)}",
            "widen the bounds (width_cap, depth_cap, width_floor), or ask for less",
        )

    def _width_ladder(self) -> list[tuple[int, ...]]:
        low, high, step = self.bounds.width_floor, self.bounds.width_cap, self.bounds.step
        factors = [low + (high - low) * i / _SCAN for i in range(_SCAN + 1)]
        rows = [
            tuple(max(1, round(width * factor / step)) * step for width in self.pricer.widths)
            for factor in factors
        ]
        inside = [
            row for row in rows
            if all(a <= w <= b for w, (a, b) in zip(row, self._limits, strict=True))
        ]  # fmt: skip
        return list(dict.fromkeys(inside))

    def _depth_ladder(self) -> list[tuple[int, ...]]:
        low, high = self.bounds.depth_floor, self.bounds.depth_cap
        factors = [low + (high - low) * i / (8 * _SCAN) for i in range(8 * _SCAN + 1)]
        rows = [
            tuple(max(1, round(depth * factor)) for depth in self.pricer.depths)
            for factor in factors
        ]
        return list(dict.fromkeys(rows))

    def _enough(self, goal: Goal, widths: tuple[int, ...]) -> Callable[[tuple[int, ...]], bool]:
        def met(depths: tuple[int, ...]) -> bool:
            if goal.minimise:
                return Goal(at_least=goal.at_least).met(self.pricer.scores([(widths, depths)])[0])
            return not Goal(at_most=goal.at_most).met(self.pricer.figures([(widths, depths)])[0])

        return met


def _only(chain: Chain, name: str, widths: Sequence[int]) -> Figure:
    """Return a figure for one combination of widths."""
    figure = chain.figures[name]
    at = [grid.index(width) for grid, width in zip(chain.grids, widths, strict=True)]
    return Figure(
        figure.constant,
        tuple(own[i : i + 1] for own, i in zip(figure.own, at, strict=True)),
        tuple(
            pair[at[s] : at[s] + 1, at[s + 1] : at[s + 1] + 1] for s, pair in enumerate(figure.pair)
        ),
        tuple(block[i : i + 1] for block, i in zip(figure.block, at, strict=True)),
    )


def _first(
    ladder: Sequence[tuple[int, ...]], met: Callable[[tuple[int, ...]], bool], largest: bool
) -> tuple[int, ...] | None:
    """Return the first rung that is enough, or with ``largest`` the last one that is not yet."""
    low, high = 0, len(ladder)
    while low < high:
        middle = (low + high) // 2
        if met(ladder[middle]):
            high = middle
        else:
            low = middle + 1
    place = low - 1 if largest else low
    return ladder[place] if 0 <= place < len(ladder) else None
