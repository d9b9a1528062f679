# SPDX-License-Identifier: Apache-2.0
"""``scale``: a family of networks of other widths and depths, without data and training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.cost.location import default_table_path
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.flow.calibration import ensure_calibrated
from chipfit.flow.network import LoadedNetwork, load_network
from chipfit.graph.capture import trace
from chipfit.methods.ran_i import RULES
from chipfit.methods.scaling import Goal, Scaler
from chipfit.methods.scaling_prices import NN_MASS, NON_LINEAR_UNITS, ScalingPricer, scalable
from chipfit.methods.scaling_search import Answer
from chipfit.nets.registry import NETS
from chipfit.scores.nn_mass import nn_mass
from chipfit.scores.non_linear_units import non_linear_units
from chipfit.space.scaling import ScalingBounds
from chipfit.targets import Target, create

#: Masses, or budgets, of the family relative to the one asked for, which is 1.
FAMILY = (0.8, 1.0, 1.25)
#: Near-optimal networks that are costed as wholes for each asked one.
FINALISTS = 3


@dataclass(frozen=True)
class ScaledNetwork:
    """One network of the family.

    Args:
        share: Its mass, or its budget, relative to what was asked for.
        widths: Channels of each stage.
        depths: Blocks of each stage.
        predicted: Figures from the cost table.
        cost: Figures of the whole network on the target; empty where it was not costed.
        provenance: How ``cost`` was come by.
        nn_mass: NN-Mass.
        non_linear_units: Elements that pass through an activation.
        gain: Latency (MACs where the target has none) of the original over its own.
        build: How to build it.
    """

    share: float
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    predicted: Mapping[str, float]
    cost: Mapping[str, float]
    provenance: str
    nn_mass: float
    non_linear_units: float
    gain: float
    build: str


@dataclass(frozen=True)
class ScaleResult:
    """The family, the original first.

    Args:
        network: What was scaled.
        target: Name of the target with its options.
        fingerprint: Of the target.
        goal: What was asked for, in words.
        rule: ``search`` or ``uniform``.
        family: The original, then the scaled ones by rising cost.
    """

    network: str
    target: str
    fingerprint: str
    goal: str
    rule: str
    family: tuple[ScaledNetwork, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


def scale(
    net: str | nn.Module,
    target: str | Target,
    *,
    mass: float | None = None,
    mass_of: str | None = None,
    budget: str | None = None,
    non_linear_units_share: float = 1.0,
    bounds: Mapping[str, float] | None = None,
    rule: str = "search",
    family: bool = True,
    finalists: int = FINALISTS,
    input_shape: tuple[int, ...] | None = None,
    table: str | Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> ScaleResult:
    """Find the cheapest networks of an NN-Mass, or the heaviest within a budget.

    Without ``mass``, ``mass_of`` and ``budget`` the mass is the network's own.

    Args:
        net: A network of stages: a name, ``file.py:factory``, or a module.
        target: A name from ``chipfit targets``, or a target.
        mass: Least NN-Mass.
        mass_of: Network whose NN-Mass and non-linear units are wanted at least.
        budget: Upper bounds, for instance ``"latency_ms=50%"``; the mass is maximised then.
        non_linear_units_share: Share of the reference's non-linear units that stays at least; with
            ``mass`` in units of the mass share, with a budget in units of the cost share.
        bounds: Fields of :class:`chipfit.space.scaling.ScalingBounds`.
        rule: ``search``, or ``uniform`` for the paper's.
        family: Also search at :data:`FAMILY` times the mass or the budget.
        finalists: Near-optimal networks that are costed as wholes on the target, of which the best
            is kept; 0 to answer from the cost table alone.
        input_shape: ``(1, C, H, W)``.
        table: Path of the cost table; ``None`` for the user's own.
        progress: Called with one line at every step worth telling.

    Raises:
        BadInput: Two goals are given, or the network has no stages.
        InfeasibleBudget: Nothing within the bounds meets what was asked for.
        UnsupportedOp: The target cannot run the network.
    """
    if sum(goal is not None for goal in (mass, mass_of, budget)) > 1:
        raise BadInput("give one of mass, mass_of and budget, not several")
    if rule not in RULES:
        raise BadInput(f"rule {rule!r}", " or ".join(RULES))
    target = create(target) if isinstance(target, str) else target
    loaded = load_network(net, input_shape=input_shape)
    scalable(loaded.net)
    target.check(trace(loaded.net, loaded.example()))
    prices = CostTable(table or default_table_path())
    model = ensure_calibrated(target, prices, progress)
    pricer = ScalingPricer(loaded.net, loaded.example(), target, prices, model, progress=progress)
    limits = dict(bounds or {})
    step = int(limits.pop("step", target.alignment))
    scaler = Scaler(pricer, ScalingBounds(step=step, **limits))
    own = pricer.figures([(pricer.widths, pricer.depths)])[0]
    key = "latency_ms" if "latency_ms" in own else "macs"
    reference = _reference(mass, mass_of, own, loaded)
    asked = None if budget is None else Budget.parse(budget).resolve(_cost(own))
    chosen: list[tuple[float, list[Answer]]] = []
    words = ""
    for share in FAMILY if family else (1.0,):
        goal = _goal(key, own, reference, asked, share, non_linear_units_share)
        words = str(goal) if share == 1.0 else words
        progress(f"searching: {goal}")
        try:
            find = scaler.best if rule == "search" else scaler.uniform
            chosen.append((share, find(goal, max(finalists, 1))))
        except InfeasibleBudget as error:
            if share == 1.0:
                raise
            progress(f"left out: {error.message}")
    members = _costed(pricer, loaded, key, chosen, finalists, asked, progress)
    return ScaleResult(loaded.name, target.spec, target.fingerprint, words, rule, tuple(members))


def _cost(figures: Mapping[str, float]) -> Cost:
    scores = (NN_MASS, NON_LINEAR_UNITS)
    return Cost({k: v for k, v in figures.items() if k not in scores}, "predicted")


def _reference(
    mass: float | None, mass_of: str | None, own: Mapping[str, float], loaded: LoadedNetwork
) -> dict[str, float]:
    """Return the mass and the non-linear units that are wanted."""
    if mass is not None:
        share = mass / own[NN_MASS]
        return {NN_MASS: mass, NON_LINEAR_UNITS: share * own[NON_LINEAR_UNITS]}
    if mass_of is None:
        return {name: own[name] for name in (NN_MASS, NON_LINEAR_UNITS)}
    other = load_network(mass_of, input_shape=loaded.input_shape)
    workload = trace(other.net, other.example())
    return {NN_MASS: nn_mass(workload), NON_LINEAR_UNITS: float(non_linear_units(workload))}


def _goal(
    key: str, own: Mapping[str, float], reference: Mapping[str, float], asked: Budget | None,
    share: float, units_share: float,
) -> Goal:  # fmt: skip
    if asked is None:
        low = {name: share * value for name, value in reference.items()}
        low[NON_LINEAR_UNITS] *= units_share
        return Goal(key, low, price=key)
    missing = [name for name in asked.keys if name not in own]
    if missing:
        raise BadInput(f"scaling cannot steer by {', '.join(missing)}")
    high = {name: share * limit for name, limit in asked.limits.items()}
    part = min(1.0, *(limit / own[name] for name, limit in high.items()))
    return Goal("", {NON_LINEAR_UNITS: units_share * part * own[NON_LINEAR_UNITS]}, high, key)


def _costed(
    pricer: ScalingPricer, loaded: LoadedNetwork, key: str,
    chosen: list[tuple[float, list[Answer]]], finalists: int, asked: Budget | None,
    progress: Callable[[str], None],
) -> list[ScaledNetwork]:  # fmt: skip
    """Cost the finalists as wholes, together with the original, and keep the best of each share."""
    own = (pricer.widths, pricer.depths)
    shapes = list(dict.fromkeys([own, *((a.widths, a.depths) for _, some in chosen for a in some)]))
    predicted = dict(zip(shapes, pricer.figures(shapes), strict=True))
    costs: dict[Any, Cost] = {}
    if finalists:
        progress(f"costing {len(shapes)} whole networks on {pricer.target.name}")
        workloads = [pricer.workload(*shape) for shape in shapes]
        found = pricer.target.cost_many(workloads)
        costs = {
            shape: Cost(
                {**pricer.target.static_cost(w), **c.total.values}, c.total.provenance
            )
            for shape, w, c in zip(shapes, workloads, found, strict=True)
        }  # fmt: skip

    def price(shape: Any) -> float:
        return costs[shape][key] if shape in costs else predicted[shape][key]

    def member(shape: Any, share: float) -> ScaledNetwork:
        figures, cost = predicted[shape], costs.get(shape)
        return ScaledNetwork(
            share, shape[0], shape[1], dict(_cost(figures).values),
            dict(cost.values) if cost else {},
            cost.provenance if cost else "", figures[NN_MASS], figures[NON_LINEAR_UNITS],
            price(own) / price(shape), _build(loaded.name, shape),
        )  # fmt: skip

    kept = [member(own, 1.0)]
    for share, answers in chosen:
        some = [(a.widths, a.depths) for a in answers]
        if asked is not None:
            limits = {name: share * limit for name, limit in asked.limits.items()}
            inside = [
                s for s in some
                if all((costs[s] if s in costs else predicted[s])[n] <= v
                       for n, v in limits.items())
            ]  # fmt: skip
            best = min(inside or some, key=lambda s: (-predicted[s][NN_MASS] if inside else 0,
                                                      price(s)))  # fmt: skip
            if not inside:
                progress(f"at {share:g} times the budget the cheapest finalist is over it")
        else:
            best = min(some, key=price)
        kept.append(member(best, share))
    return [kept[0], *sorted(kept[1:], key=lambda m: m.share)]


def _build(name: str, shape: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    """Return how to build a scaled network: a name of the zoo, or a line of Python."""
    widths, depths = ("-".join(map(str, numbers)) for numbers in shape)
    base, _, options = name.partition(":")
    if base in NETS:
        others = [part for part in options.split(",") if part and part.split("=")[0] not in
                  ("widths", "depths")]  # fmt: skip
        return f"{base}:" + ",".join([*others, f"widths={widths}", f"depths={depths}"])
    return f"net.scaled({shape[0]}, {shape[1]})"
