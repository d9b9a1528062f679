# SPDX-License-Identifier: Apache-2.0
"""Patterns of RAN-e blocks found without training, beside RAN-e-GT and EfficientNet-Lite0.

    python -m benchmarks.ran_e_search --targets ethos-u55-128 --store runs/ran-e-search

Every pattern has at least as many non-linear units as RAN-e-GT, and as many MACs and parameters as
the floors ask for; its cycles are those of the whole network, compiled. Compiled networks are kept
in the store, so that an interrupted search continues.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.output import Report, command, parser
from benchmarks.pattern_store import PatternStore, Recipe
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.methods.ran_e_pattern import Compiled, Effort, Found, amounts_of, search_pattern
from chipfit.nets import create as create_net
from chipfit.nets.ran_e import RAN_E_C, RAN_E_GT
from chipfit.nets.ran_e_pattern import Pattern
from chipfit.space.choice import SearchSpace
from chipfit.space.ran_e import FUSED_EXPANSIONS, pattern_space
from chipfit.targets import Target, create

BASE = "efficientnet_lite0"
TARGETS = (
    "ethos-u55-128", "ethos-u55-256", "ethos-u65-512:system_config=Ethos_U65_High_End",
    "ethos-u85-256",
)  # fmt: skip
#: Spaces by name: expansions of fused bottlenecks.
SPACES = {"published options": (), "with fused bottlenecks": FUSED_EXPANSIONS}
#: Activations that a network may have everywhere, in the order of preference at equal cost.
ACTIVATIONS = ("relu6", "relu", "hardswish")
#: Networks with other activations have other synthetic weights, which compress differently.
NOISE = 2e-3
MARK = {"hardswish": "h", "relu6": "r6", "relu": "r"}

Row = dict[str, Any]


class Comparison:
    """One target: its baseline, RAN-e's own networks, and the searches.

    Args:
        target: Compiles.
        store: Keeps compiled networks.
        effort: Of every search.
        slack: Share of the cycles that hardswish may add altogether.
    """

    def __init__(self, target: Target, store: PatternStore, effort: Effort, slack: float) -> None:
        self.target, self.store, self.effort, self.slack = target, store, effort, slack
        self.size = store.recipe.size
        self.terminal = Terminal()
        net = create_net(BASE, input_shape=(1, 3, self.size, self.size)).eval()
        self.base_ms = store.whole(BASE, net)
        #: Of the searches so far; a larger space starts from those of a smaller one.
        self.bests: list[Compiled] = []
        self.rows: list[Row] = []
        self.searches: list[Row] = []

    def speed(self, compiled: Compiled) -> float:
        """Return inferences a second in units of the baseline's."""
        return self.base_ms / compiled.latency_ms

    def published(self, pattern: str, activation: str) -> Compiled:
        """Return one of RAN-e's own networks with one activation everywhere."""
        parts = tuple(map(str, Pattern.parse(pattern).blocks))
        return self.store.compile_many([parts], activation)[0]

    def cheapest_activation(self) -> str:
        """Return the activation that is cheapest everywhere; the first within :data:`NOISE`."""
        cycles = {a: self.published(RAN_E_GT, a).cycles for a in ACTIVATIONS}
        limit = min(cycles.values()) * (1 + NOISE)
        return next(name for name in ACTIVATIONS if cycles[name] <= limit)

    def row(self, name: str, compiled: Compiled, activation: str, text: str = "") -> Row:
        """Return the line of a table."""
        amounts = compiled.amounts
        return {
            "target": self.target.name, "network": name, "activation": activation,
            "FPS x": self.speed(compiled), "kcycles": compiled.cycles / 1e3,
            "units M": amounts["units"] / 1e6, "MACs M": amounts["macs"] / 1e6,
            "params M": amounts["params"] / 1e6,
            "NN-Mass": self.store.nn_mass(compiled.parts),
            "pattern": text or str(Pattern.of(compiled.parts)),
        }  # fmt: skip

    def search(
        self, space: SearchSpace, label: str, shares: Sequence[float], activation: str
    ) -> None:
        """Search one space, with floors of MACs and parameters from low to high."""
        gt = self.published(RAN_E_GT, activation)
        amounts, rest = amounts_of(
            space, self.store.builder(activation), self.store.recipe.input_shape
        )
        options = set(space.choices[0].options)
        known = [gt, *(one for one in self.bests if options.issuperset(one.parts))]
        for share in shares:
            wanted = {"units": 1.0, "macs": share, "params": share}
            floors = {
                name: part * gt.amounts[name] - rest[name] for name, part in wanted.items() if part
            }
            start, before = time.monotonic(), self.store.compilations
            found = search_pattern(
                space, lambda parts: self.store.compile_many(parts, activation), amounts, floors,
                self.effort, known, self._say(label, share),
            )  # fmt: skip
            seconds, spent = time.monotonic() - start, self.store.compilations - before
            known = list(found.asked)
            self.bests.append(found.best)
            name = f"{label}, MACs and params >= {share:g} GT's" if share else label
            self.rows.append(self.row(name, found.best, activation))
            self.searches.append(self._effort_row(name, found, seconds, spent))
            mixed, text = self.mixed(found.best, activation)
            if mixed is not found.best:
                self.rows.append(self.row(f"{name}, hardswish where cheap", mixed, "mixed", text))

    def mixed(self, best: Compiled, activation: str) -> tuple[Compiled, str]:
        """Give blocks and head hardswish, the cheapest first, while it costs no more than slack.

        Every candidate is compiled whole; the first that goes over ends it.
        """
        head = f"head.{MARK[activation]}"
        plain = (*(f"{part}.{MARK[activation]}" for part in best.parts), head)
        trials = [_with_hardswish(plain, [place]) for place in range(len(plain))]
        alone = self.store.compile_many(trials, activation)
        order = sorted(range(len(plain)), key=lambda place: (alone[place].cycles, place))
        limit = best.cycles * (1 + self.slack)
        chosen, compiled = plain, best
        for count in range(1, len(order) + 1):
            trial = _with_hardswish(plain, order[:count])
            one = self.store.compile_many([trial], activation)[0]
            if one.cycles > limit:
                break
            chosen, compiled = trial, one
        return compiled, str(Pattern.of(chosen))

    def _say(self, label: str, share: float) -> Any:
        return lambda line: self.terminal.progress(
            f"{self.target.name}, {label}, floors {share:g}: {line}"
        )

    def _effort_row(self, name: str, found: Found, seconds: float, spent: int) -> Row:
        late = sorted(abs(error) for error in found.errors)
        return {
            "target": self.target.name, "search": name, "seconds": seconds,
            "compiled now": spent, "asked for": len(found.asked),
            "best, kcycles": found.best.cycles / 1e3,
            "next by table, kcycles": found.next_predicted / 1e3,
            "table's error %, median": 100 * late[len(late) // 2] if late else None,
            "largest": 100 * late[-1] if late else None,
        }  # fmt: skip


def _with_hardswish(parts: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    return tuple(
        part.rpartition(".")[0] + ".h" if i in places else part for i, part in enumerate(parts)
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Search and compare."""
    flags = parser("RAN-e patterns found without training")
    flags.add_argument("--targets", nargs="+", default=list(TARGETS))
    flags.add_argument("--spaces", nargs="+", choices=list(SPACES), default=list(SPACES))
    flags.add_argument(
        "--floors", nargs="+", type=float, default=[0.0, 0.75, 1.0],
        help="least MACs and parameters, in units of RAN-e-GT's",
    )  # fmt: skip
    flags.add_argument("--size", type=int, default=224, help="pixels a side")
    flags.add_argument("--store", type=Path, default=Path("runs/ran-e-search"))
    flags.add_argument("--compilations", type=int, default=80, help="most per search, seeds apart")
    flags.add_argument("--patience", type=int, default=24, help="failures in a row that end it")
    flags.add_argument("--sweeps", type=int, default=2, help="of seeding")
    flags.add_argument("--slack", type=float, default=0.005, help="cycles for hardswish, share")
    flags.add_argument("--workers", type=int, default=1)
    given = flags.parse_args(argv)
    if given.compilations < 1 or given.patience < 1 or given.sweeps < 1:
        raise BadInput("--compilations, --patience and --sweeps must be positive")
    effort = Effort(given.sweeps, 2, given.patience, given.compilations)
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "workers")}
    report = Report("ran_e_search", kept, given.out)
    rows: list[Row] = []
    searches: list[Row] = []
    for name in given.targets:
        target = create(name)
        with PatternStore(given.store, target, Recipe(given.size), given.workers) as store:
            one = Comparison(target, store, effort, given.slack)
            for network, pattern in (("RAN-e-GT", RAN_E_GT), ("RAN-e-C", RAN_E_C)):
                for activation in reversed(ACTIVATIONS):
                    compiled = one.published(pattern, activation)
                    one.rows.append(one.row(network, compiled, activation))
            cheapest = one.cheapest_activation()
            for label in given.spaces:
                space = pattern_space(fused=SPACES[label])
                one.search(space, label, given.floors, cheapest)
        rows += one.rows
        searches += one.searches
        report.tables.clear()
        report.table(
            f"inferences a second, relative to EfficientNet-Lite0, at {given.size} x {given.size}",
            rows,
            "Vela's cycles of the whole network, synthetic weights. Found patterns have at least"
            " the non-linear units of RAN-e-GT; NN-Mass counts skip connections, which the"
            " skeleton alone decides",
        )
        report.table("how they were found", searches, "one compilation takes about a second")
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
