# SPDX-License-Identifier: Apache-2.0
"""RAN-e's published patterns, found ones, narrower networks and NetAdapt, trained alike.

    python -m benchmarks.ran_e_cifar --targets ethos-u55-256 --store runs/ran-e-cifar

On a CPU, so on networks far smaller than the published ones (``--size``): EfficientNet-Lite0's and
RAN-e's skeletons for images of 32 pixels. The budget is a share of the latency of the
EfficientNet-Lite0-like original. Every contestant is brought within it: patterns by the width of
their skeleton, the original by narrower channels, by NetAdapt and by ``--method ran-e``. All of
them are then trained from scratch with the same recipe, images and seeds. Results are kept in the
store, so that an interrupted benchmark continues.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.alike import AlikeJob, network_of, options_of, train_all
from benchmarks.output import Report, command, parser, spread
from benchmarks.pattern_store import PatternStore
from benchmarks.pattern_store import Recipe as PatternRecipe
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.flow.fit import fit
from chipfit.graph.capture import trace
from chipfit.methods.ran_e_pattern import Effort, amounts_of, search_pattern
from chipfit.nets.ran_e import LITE0, RAN_E_C, RAN_E_GT
from chipfit.nets.ran_e_pattern import Pattern
from chipfit.rewrite.replay import Rewrite
from chipfit.runs.candidate import ORIGINAL
from chipfit.runs.run import Run
from chipfit.space.ran_e import pattern_space
from chipfit.targets import Target, create
from chipfit.tasks import Task, load_task

ORIGINAL_NAME = "EfficientNet-Lite0-like original"
#: Width multipliers that are tried, by bisection.
WIDTHS = tuple(i / 20 for i in range(3, 61))
#: Options of NetAdapt and ran-e, for networks and budgets of this size.
NETADAPT = {"steps": 6, "short_steps": 10, "val_images": 500}
RAN_E = {
    "steps": 2, "search_epochs": 0.5, "short_steps": 30, "val_images": 1000,
    "expansions": (0.5,), "crop_kernels": False, "activations": ("own",),
}  # fmt: skip
SIZES = ("tiny", "32")

Row = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A network to train.

    Args:
        name: What it is called in the table.
        spec: The network in the zoo.
        edits: What is done to it before training.
        how: What distinguishes it.
        target: That it was made for; empty for the original.
        own: Int8 test accuracy that its method reached by its own training, where it trains.
    """

    name: str
    spec: str
    edits: tuple[Rewrite, ...] = ()
    how: str = ""
    target: str = ""
    own: float | None = None

    def job(self, given: Any, task: Task, seed: int) -> AlikeJob:
        """Return the training of one seed."""
        edits = [edit.to_json() for edit in self.edits]
        digest = hashlib.sha256(json.dumps([self.spec, edits]).encode()).hexdigest()[:10]
        folder = Path(given.store) / f"{given.data}-{given.steps}" / digest
        recipe = task.recipe.replace(steps=given.steps)
        return AlikeJob(self.spec, recipe, seed, folder, self.edits)


class Field:
    """All contestants of one target.

    Args:
        task: What they are trained on.
        target: Whose latency is bounded.
        given: The arguments.
    """

    def __init__(self, task: Task, target: Target, given: Any) -> None:
        self.task, self.target, self.given = task, target, given
        self.lite, self.ran = (f"{name}_{given.size}" for name in ("lite0", "ran_e"))
        self.limit_ms = given.share * self.latency_ms(self.spec(LITE0, self.lite))

    def spec(self, pattern: str, skeleton: str, width: float = 1.0) -> str:
        """Return the network of a pattern by name."""
        options = f"pattern={pattern},skeleton={skeleton},width={width:g}"
        return f"ran_e:{options},activation={self.given.activation},dropout=0.0"

    def latency_ms(self, spec: str) -> float:
        """Return the compiled latency of a network with synthetic weights."""
        net = network_of(AlikeJob(spec, self.task.recipe, 0, Path()), self.task).eval()
        return self.target.cost(trace(net, self.task.example_input())).total["latency_ms"]

    def widest(self, name: str, pattern: str, skeleton: str) -> Contestant:
        """Return the widest network of a pattern that is within the budget.

        Raises:
            InfeasibleBudget: None is.
        """
        low, high = 0, len(WIDTHS)  # of WIDTHS[:low] every network is within the budget
        while low < high:
            middle = (low + high) // 2
            within = self.latency_ms(self.spec(pattern, skeleton, WIDTHS[middle])) <= self.limit_ms
            low, high = (middle + 1, high) if within else (low, middle)
        if low:
            width = WIDTHS[low - 1]
            how = f"width x {width:g}"
            return Contestant(name, self.spec(pattern, skeleton, width), (), how, self.target.name)
        raise InfeasibleBudget(
            f"{name} is over {self.limit_ms:.4g} ms at every width", "raise --share"
        )

    def found_pattern(self, floor: float) -> str:
        """Return the cheapest pattern with GT's non-linear units and a share of its MACs."""
        recipe = PatternRecipe(self.task.input_shape[2], self.ran, self.task.num_classes)
        space = pattern_space()
        with PatternStore(Path(self.given.store), self.target, recipe) as store:
            build = store.builder(self.given.activation)
            amounts, rest = amounts_of(space, build, recipe.input_shape)
            parts = tuple(map(str, Pattern.parse(RAN_E_GT).blocks))
            gt = store.compile_many([parts], self.given.activation)[0]
            floors = {
                "units": gt.amounts["units"] - rest["units"],
                "macs": floor * gt.amounts["macs"] - rest["macs"],
            }
            found = search_pattern(
                space, lambda many: store.compile_many(many, self.given.activation), amounts,
                floors, Effort(patience=12, compilations=40), [gt], Terminal().progress,
            )  # fmt: skip
        return str(Pattern.of(found.best.parts))

    def fitted(self, method: str, options: Mapping[str, Any]) -> Contestant | None:
        """Return what a method makes of the original within the budget, or ``None``."""
        digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:6]
        name = f"{method}-{self.target.name}-{self.given.steps}-{digest}"
        folder = Path(self.given.store) / name
        spec = self.spec(LITE0, self.lite)
        per_epoch = self.task.steps_per_epoch(self.task.recipe.batch_size)
        try:
            fit(
                spec, self.target, {"latency_ms": self.limit_ms}, self.task.name, run=folder,
                method=method, method_options=options, members=1, workers=self.given.workers,
                epochs=self.given.steps / per_epoch, recovery_epochs=self.given.steps / per_epoch,
                progress=Terminal().progress,
            )  # fmt: skip
        except InfeasibleBudget as error:
            Terminal().progress(f"{method} on {self.target.name}: {error}")
        members = [c for c in Run.read(folder).candidates() if c.id != ORIGINAL]
        within = [c for c in members if c.cost.get("latency_ms", 1e9) <= self.limit_ms]
        if not within:
            return None
        best = max(within, key=lambda c: c.metrics["val_accuracy"])
        own = best.metrics["int8_test_accuracy"]
        return Contestant(
            f"{method} from the original", spec, best.edits, best.id, self.target.name, own
        )

    def contestants(self) -> list[Contestant]:
        """Return everybody within the budget."""
        found = [
            self.widest("RAN-e-GT's pattern", RAN_E_GT, self.ran),
            self.widest("RAN-e-C's pattern", RAN_E_C, self.ran),
        ]
        for floor in self.given.floors:
            pattern = self.found_pattern(floor)
            name = f"found pattern, MACs >= {floor:g} GT's"
            one = self.widest(name, pattern, self.ran)
            found.append(Contestant(name, one.spec, (), f"{pattern} {one.how}", one.target))
        found.append(self.widest("uniform width multiplier", LITE0, self.lite))
        methods = {"netadapt": NETADAPT, "ran-e": {**RAN_E, **options_of(self.given.option)}}
        for method in self.given.methods:
            fitted = self.fitted(method, methods[method])
            if fitted is not None:
                found.append(fitted)
        return found


def rows_of(
    field: Field, contestants: Sequence[Contestant], results: Mapping[str, list[dict[str, Any]]]
) -> list[Row]:
    """Return the table of one target."""
    rows = []
    for one in contestants:
        own = results[_key(one)]
        rows.append({
            "network": one.name, "made by": one.how,
            "latency_ms": spread([r["latency_ms"][field.target.spec] for r in own]),
            "x budget": max(r["latency_ms"][field.target.spec] for r in own) / field.limit_ms,
            "MACs M": own[0]["macs"] / 1e6, "params k": own[0]["params"] / 1e3,
            "units k": own[0]["units"] / 1e3, "images": own[0]["images"],
            "int8 test %": spread([100 * r["int8_test"] for r in own]),
            "val %": spread([100 * r["val"] for r in own]),
            "int8 test %, own training": None if one.own is None else 100 * one.own,
        })  # fmt: skip
    return rows


def _key(one: Contestant) -> str:
    return json.dumps([one.spec, [edit.to_json() for edit in one.edits]])


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Bring everybody within the budget, train them alike, and compare."""
    flags = parser("RAN-e against the originals, trained alike")
    flags.add_argument("--targets", nargs="+", default=["ethos-u55-256"])
    flags.add_argument("--data", default="cifar10")
    flags.add_argument("--size", choices=SIZES, default="tiny")
    flags.add_argument("--activation", default="relu6")
    flags.add_argument("--share", type=float, default=0.7, help="budget: share of the original's")
    flags.add_argument("--steps", type=int, default=500, help="of every training, 128 images each")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--floors", nargs="*", type=float, default=[0.0, 1.0])
    flags.add_argument(
        "--methods", nargs="*", choices=("netadapt", "ran-e"), default=["netadapt", "ran-e"]
    )
    flags.add_argument("--option", action="append", default=[], help="name=value, of ran-e")
    flags.add_argument("--store", type=Path, default=Path("runs/ran-e-cifar"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if given.steps < 1 or given.seeds < 1 or not given.share > 0:
        raise BadInput("--steps, --seeds and --share must be positive")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "workers")}
    report = Report("ran_e_cifar", kept, given.out)
    task, targets = load_task(given.data), [create(name) for name in given.targets]
    if given.floors and task.input_shape[1] != 3:
        raise BadInput(f"patterns are searched for colour images, {given.data} has none",
                       "leave --floors empty")  # fmt: skip
    given.store = given.store / given.size
    fields = [Field(task, target, given) for target in targets]
    original = Contestant(ORIGINAL_NAME, fields[0].spec(LITE0, fields[0].lite))
    entries = [[original, *field.contestants()] for field in fields]
    unique = {_key(one): one for own in entries for one in own}
    jobs = [
        (key, one.job(given, task, s)) for s in range(given.seeds) for key, one in unique.items()
    ]
    trained = train_all(task, targets, [job for _, job in jobs], given.workers)
    results: dict[str, list[dict[str, Any]]] = {}
    for (key, _), result in zip(jobs, trained, strict=True):
        results.setdefault(key, []).append(result)
    for field, own in zip(fields, entries, strict=True):
        report.table(
            f"{task.name}, at most {field.limit_ms:.4g} ms on {field.target.name},"
            f" size {given.size}",
            rows_of(field, own, results),
            f"median (min..max) over {given.seeds} seeds; everybody trained from scratch for"
            f" {given.steps} steps of {task.recipe.batch_size} images, on a CPU: far smaller"
            " networks and trainings than the published ones. Own training: what the method itself"
            " reached, from the trained original's weights, one seed",
        )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
