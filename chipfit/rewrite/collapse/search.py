# SPDX-License-Identifier: Apache-2.0
"""Choose which regions to merge: what never costs anything first, then by the cost that falls."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from chipfit.rewrite.collapse.affine import Affine
from chipfit.rewrite.collapse.aliases import safe
from chipfit.rewrite.collapse.emit import layers_of, replace
from chipfit.rewrite.collapse.region import Region, Regions, positions

#: Relative difference of two costs below which they count as equal.
EQUAL = 1e-9


@dataclass(frozen=True)
class Step:
    """One rewrite, or all foldings at once.

    Args:
        kind: ``"fold"`` (batch norms, scalings, padding and what does nothing), ``"sequence"``,
            ``"branches"``, ``"residual"`` or ``"concat"``.
        modules: What went, by name; functions under the name they have in the trace.
        into: Names of the layers that took their place; none where nothing was left.
        before: Cost of the whole network before, in the unit that was asked for.
        after: Cost of the whole network after.
    """

    kind: str
    modules: tuple[str, ...]
    into: tuple[str, ...]
    before: float
    after: float


class Collapser:
    """Rewrites one traced network in place.

    Args:
        module: Its nodes carry ``meta["shape"]``.
        constants: Values of the nodes that do not depend on the input.
        cost: Of a whole network, lower is better; ``None`` counts multiply-accumulates of the
            layers that change.
        macs: Multiply-accumulates of the whole network, where ``cost`` is ``None``.
        only: Kinds of nodes that may take part; ``None`` allows all.
        fixed_size: Images have the size of the example, always.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        constants: dict[fx.Node, Any],
        cost: Callable[[nn.Module], float] | None,
        macs: float = 0.0,
        only: frozenset[str] | None = None,
        fixed_size: bool = False,
    ) -> None:
        self.module = module
        self.cost = cost
        self.only = only
        self.fixed_size = fixed_size
        self.regions = Regions(module, constants)
        self.now = macs if cost is None else cost(module)
        self.steps: list[Step] = []

    def run(self) -> list[Step]:
        """Fold, then merge while something falls; return what was done."""
        self.fold()
        self.merge()
        return self.steps

    def fold(self) -> None:
        """Absorb batch norms, scalings and padding into their layer; drop what does nothing."""
        before = self.now
        modules: list[str] = []
        into: list[str] = []
        saved = 0.0
        # What follows a layer belongs to it; only what is left may go to the layer behind it.
        for behind in (True, False):
            for last in reversed(list(self.module.graph.nodes)):
                for region in () if last._erased else reversed(list(self.regions.ending_at(last))):
                    found = self._foldable(region, behind)
                    if found is not None:
                        modules += names(region)
                        saved += region.macs() - macs_of(region, found)
                        name = self._replace(region, found)
                        into += [name] * (not found.is_identity())
                        break
        if not modules:
            return
        self.now = before - saved if self.cost is None else self.cost(self.module)
        gone = dict.fromkeys(into)
        self.steps.append(Step("fold", tuple(modules), tuple(gone), before, self.now))

    def _foldable(self, region: Region, behind: bool) -> Affine | None:
        """Return the merged map where the region has one layer at most and nothing grows.

        Args:
            region: Any.
            behind: Only what stands behind its layer is absorbed, besides padding.
        """
        kinds = region.kinds()
        if self.only is not None and not set(kinds) <= self.only:
            return None
        if "add" in kinds or "concat" in kinds or "pool" in kinds or region.weighing() > 1:
            return None  # a pooling becomes a convolution only where that pays
        layer = next((i for i, k in enumerate(kinds) if k in ("conv", "linear")), None)
        if layer is not None:
            before = set(kinds[:layer])
            if len(kinds) == 1 or (behind and not before <= {"pad", "identity"}):
                return None
        affine = region.merged()
        if affine is None or macs_of(region, affine) > region.macs():
            return None
        if layer is None and not affine.is_padding():
            return None
        if kinds.count("pad") == 1 and not affine.is_identity():
            if layer is None or affine.before != affine.after:
                return None  # the padding would have to stay a layer of its own
        if not self._safe(region, affine):
            return None
        if self.cost is not None and not behind and self._saving(region) is None:
            return None
        return affine

    def _safe(self, region: Region, affine: Affine) -> bool:
        return safe(
            region.source, region.nodes, region.lifts, self.regions.modules, affine.is_identity()
        )

    def merge(self) -> None:
        """Merge layers, the region that saves most first, while any saves something."""
        known: dict[tuple[str, tuple[str, ...]], float | None] = {}
        while True:
            best: tuple[float, int, Region] | None = None
            for region in self._mergeable():
                if region.key not in known:
                    known[region.key] = self._saving(region)
                saving = known[region.key]
                if saving is not None:
                    rank = (saving, len(region.nodes))
                    if best is None or rank > best[:2]:
                        best = (*rank, region)
            if best is None:
                return
            saving, _, region = best
            affine = self._merged(region)
            assert affine is not None
            gone, before = names(region), self.now
            name = self._replace(region, affine)
            self.now = before - saving if self.cost is None else self.cost(self.module)
            left = () if affine.is_identity() else (name,)
            self.steps.append(Step(kind_of(region), gone, left, before, self.now))

    def _mergeable(self) -> Iterator[Region]:
        for last in self.module.graph.nodes:
            for region in self.regions.ending_at(last):
                kinds = region.kinds()
                joins = "add" in kinds or "concat" in kinds
                if region.weighing() > 1 or (joins and len(kinds) > 1):
                    yield region

    def _saving(self, region: Region) -> float | None:
        """Return what merging the region saves; ``None`` where it is not exact or not worth it."""
        affine = self._merged(region)
        if affine is None or not self._safe(region, affine):
            return None
        if self.cost is None:
            saving = float(region.macs() - macs_of(region, affine))
        else:
            saving = self.now - self.cost(self._trial(region, affine))
        equal = abs(saving) <= EQUAL * abs(self.now)
        if equal:
            return 0.0 if len(region.nodes) > len(layers_of(affine)) else None
        return saving if saving > 0 else None

    def _merged(self, region: Region) -> Affine | None:
        """Return the merged map; for images of one size where nothing else is exact."""
        affine = region.merged()
        return region.bordered() if affine is None and self.fixed_size else affine

    def _replace(self, region: Region, affine: Affine) -> str:
        readers = list(region.nodes[-1].users)
        name = replace(self.module, region, affine)
        _clean(self.module, self.regions.constants)
        self.regions.changed(self.module, readers)
        return name

    def _trial(self, region: Region, affine: Affine) -> fx.GraphModule:
        """Return a network of its own with that rewrite, which shares all other modules."""
        graph = fx.Graph()
        places: dict[fx.Node, fx.Node] = {}
        output = graph.graph_copy(self.module.graph, places, return_output_node=True)
        assert isinstance(output, tuple)
        graph.output(output[0])
        copy = fx.GraphModule(self.module, graph, type(self.module).__name__)
        copy.training = self.module.training
        moved = Region(
            places[region.source], tuple(places[node] for node in region.nodes),
            {places[node]: one for node, one in region.lifts.items()}, region.axes,
        )  # fmt: skip
        replace(copy, moved, affine)
        _clean(copy, [places[node] for node in self.regions.constants if node in places])
        return copy


def _clean(module: fx.GraphModule, constants: Container[fx.Node]) -> None:
    """Drop constants that nobody reads any more; everything else may write somewhere."""
    for node in reversed(list(module.graph.nodes)):
        if node in constants and not node.users:
            module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()


def macs_of(region: Region, affine: Affine) -> int:
    """Return the multiply-accumulates of ``affine`` in the place of ``region``."""
    if affine.is_padding():
        return 0
    return positions(region.nodes[-1], region.axes) * affine.macs_per_position


def names(region: Region) -> tuple[str, ...]:
    """Return the module or the function's name of each node."""
    return tuple(str(n.target) if n.op == "call_module" else n.name for n in region.nodes)


def kind_of(region: Region) -> str:
    """Return what the region mainly is."""
    kinds = region.kinds()
    if "concat" in kinds:
        return "concat"
    if "add" not in kinds:
        return "sequence"
    joins = [one for one in region.lifts.values() if one.kind == "add"]
    return "residual" if any(region.source in one.inputs for one in joins) else "branches"
