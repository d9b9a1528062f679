# SPDX-License-Identifier: Apache-2.0
"""Workloads and figures of the networks that scaling makes of one network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from chipfit.cost.model import CalibrationModel
from chipfit.cost.predict import ADDITIVE, predict_many
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.resize import Unresizable, resize
from chipfit.graph.workload import Workload
from chipfit.rewrite.scale import Scalable, Scale
from chipfit.scores.nn_mass import nn_mass
from chipfit.scores.non_linear_units import non_linear_units
from chipfit.space.chain import Shape
from chipfit.targets.base import Target
from chipfit.workers import WorkerPool

#: Figures that every scaling is judged by, besides what the target charges.
NN_MASS, NON_LINEAR_UNITS = "nn_mass", "non_linear_units"
#: Parameters from which on a network is traced without its weights.
LARGE = 1_000_000
#: Static figures that are sums over operators.
_STATIC = ("macs", "params", "weight_bytes")


def scalable(net: nn.Module) -> Scalable:
    """Return ``net`` as what it has to be.

    Raises:
        BadInput: It cannot be scaled.
    """
    if not isinstance(net, Scalable):
        raise BadInput(
            f"{type(net).__name__} cannot be scaled",
            "give it the attributes widths and depths and a method scaled(widths, depths), or "
            "choose a net of stages, for instance convnext_tiny or resnet18",
        )
    return net


class ScalingPricer:
    """Predicts figures of scaled networks.

    Networks of equal depths differ in widths only: one of them is traced, and how each layer's
    width follows from the stages' is learnt by widening one stage at a time. The others are resized
    from it in about a millisecond. That is checked on a network that was not learnt from; where
    widths follow no such rule, every network is built and traced.

    Args:
        net: The network to scale.
        example: Its input, ``(1, C, H, W)``.
        target: Prices units.
        table: Keeps prices.
        calibration: As in :func:`chipfit.cost.predict.predict`.
        pool: Worker processes for absent units; this process where ``None``.
        progress: Called with one line at every step worth telling.
    """

    def __init__(
        self,
        net: nn.Module,
        example: torch.Tensor,
        target: Target,
        table: CostTable,
        calibration: float | CalibrationModel | None = None,
        pool: WorkerPool | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.net, self.target = net, target
        family = scalable(net)
        self.widths = tuple(int(width) for width in family.widths)
        self.depths = tuple(int(depth) for depth in family.depths)
        self._large = sum(p.numel() for p in net.parameters()) > LARGE
        self._example, self._table, self._calibration = example, table, calibration
        self._pool, self._progress = pool, progress
        self._templates: dict[tuple[int, ...], _Template | None] = {}
        self._slopes: dict[str, list[float]] = {}
        self._figures: dict[Shape, dict[str, float]] = {}
        self._scores: dict[Shape, dict[str, float]] = {}

    def build(self, widths: Sequence[int], depths: Sequence[int]) -> nn.Module:
        """Return the scaled network with the weights that :class:`Scale` draws."""
        return Scale(tuple(widths), tuple(depths)).apply(self.net)

    def workload(self, widths: Sequence[int], depths: Sequence[int]) -> Workload:
        """Return the traced workload of one scaled network; its weights mean nothing."""
        # By shapes alone where drawing the weights would take longer than doing without them.
        device = torch.device("meta" if self._large else "cpu")
        with device, torch.random.fork_rng(devices=[]):
            net = scalable(self.net).scaled(tuple(widths), tuple(depths))
        return trace(net.eval(), self._example.to(device))

    def learn(self, depths: Sequence[int], low: Sequence[int], high: Sequence[int]) -> None:
        """Learn to resize networks of these depths and of widths from ``low`` to ``high``."""
        key = tuple(depths)
        if key not in self._templates:
            self._templates[key] = _learn(self.workload, key, tuple(low), tuple(high), self._slopes)

    def figures(self, shapes: Sequence[Shape]) -> list[Mapping[str, float]]:
        """Return what each network is predicted to cost, and its :meth:`scores`.

        Latency, cycles and energy are sums over units; absent units are priced in one batch.

        Raises:
            UnsupportedOp: The target refuses an operator.
        """
        missing = [shape for shape in dict.fromkeys(shapes) if shape not in self._figures]
        workloads = [self._fast(*shape) for shape in missing]
        costs = predict_many(
            workloads, self.target, self._table, self._calibration, self._pool, self._tell
        )
        for shape, workload, cost in zip(missing, workloads, costs, strict=True):
            total = cost.total.values
            found = {key: float(total[key]) for key in ADDITIVE if key in total}
            self._figures[shape] = found | self._score(shape, workload)
        return [self._figures[shape] for shape in shapes]

    def scores(self, shapes: Sequence[Shape]) -> list[Mapping[str, float]]:
        """Return NN-Mass, non-linear units, MACs, parameters and bytes; nothing is priced."""
        return [
            self._scores.get(shape) or self._score(shape, self._fast(*shape)) for shape in shapes
        ]

    def _score(self, shape: Shape, workload: Workload) -> dict[str, float]:
        if shape not in self._scores:
            static = self.target.static_cost(workload)
            self._scores[shape] = {key: float(static[key]) for key in _STATIC if key in static} | {
                NN_MASS: float(nn_mass(workload)),
                NON_LINEAR_UNITS: float(non_linear_units(workload)),
            }
        return self._scores[shape]

    def _fast(self, widths: Sequence[int], depths: Sequence[int]) -> Workload:
        template = self._templates.get(tuple(depths))
        if template is not None:
            try:
                return template.resized(widths)
            except Unresizable:
                pass  # built and traced below
        return self.workload(widths, depths)

    def _tell(self, done: int, total: int) -> None:
        if total > 50 and (done == total or done % 50 == 0):
            self._progress(f"priced {done} of {total} units on {self.target.name}")


class _Template:
    """A traced network, and how much wider each layer becomes by each stage's width."""

    def __init__(
        self, workload: Workload, widths: Sequence[int], slopes: Mapping[str, Sequence[float]]
    ) -> None:
        self._workload, self._widths, self._slopes = workload, widths, slopes
        self._own = _channels(workload)

    def resized(self, widths: Sequence[int]) -> Workload:
        """Return the network of these widths.

        Raises:
            Unresizable: A shape does not follow from the widths, or is no whole number.
        """
        if _equal(widths) != _equal(self._widths):
            raise Unresizable("a shortcut may be there where neighbouring widths are equal")
        change = [new - old for new, old in zip(widths, self._widths, strict=True)]
        wanted = {}
        for name, slopes in self._slopes.items():
            width = self._own[name] + sum(a * b for a, b in zip(slopes, change, strict=True))
            if width != round(width) or width < 1:
                raise Unresizable(f"{name}: {width} channels")
            wanted[name] = round(width)
        return resize(self._workload, wanted)


def _equal(widths: Sequence[int]) -> list[bool]:
    return [one == other for one, other in pairwise(widths)]


def _learn(
    build: Callable[[Sequence[int], Sequence[int]], Workload],
    depths: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...],
    known: dict[str, list[float]],
) -> _Template | None:  # fmt: skip
    """Return a template whose networks equal those that are built, ``None`` where none does.

    Args:
        build: Builds and traces.
        depths: Of the template.
        low: Its widths.
        high: Widths of the network it is checked with.
        known: Slopes by layer, as networks of other depths had them; new ones are added.
    """
    base, wanted = build(low, depths), build(high, depths).key
    own = _channels(base)
    for slopes in (known, None):
        if slopes is None:
            slopes = _slopes(build, depths, low, high, own)
            known |= slopes or {}
        if not slopes or not set(own) <= set(slopes):
            continue
        template = _Template(base, low, {name: slopes[name] for name in own if any(slopes[name])})
        try:
            if template.resized(high).key == wanted:
                return template
        except Unresizable:
            continue
    return None


def _slopes(
    build: Callable[[Sequence[int], Sequence[int]], Workload],
    depths: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...], own: Mapping[str, int],
) -> dict[str, list[float]] | None:  # fmt: skip
    found: dict[str, list[float]] = {name: [0.0] * len(low) for name in own}
    for s, width in enumerate(high):
        if width == low[s]:
            continue
        wider = _channels(build([width if i == s else w for i, w in enumerate(low)], depths))
        if set(wider) != set(own):
            return None
        for name, before in own.items():
            found[name][s] = (wider[name] - before) / (width - low[s])
    return found


def _channels(workload: Workload) -> dict[str, int]:
    """Return what :func:`chipfit.graph.resize.resize` can change, by name."""
    found = {}
    for node in workload.nodes:
        if node.module and node.op.kind == "conv2d" and not node.op.depthwise:
            found[node.module] = node.op.output[1]
        elif node.module and node.op.kind == "linear":
            found[node.module] = node.op.output[-1]
    for name in workload.constants:
        axes = [size for size in workload.shapes[name] if size > 1]
        if len(axes) == 1:
            found[name] = axes[0]
    return found
