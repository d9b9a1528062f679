# SPDX-License-Identifier: Apache-2.0
"""All ways to make a trained network faster, side by side: equal latency, equal images.

    python -m benchmarks.side_by_side --data cifar10 --targets ethos-u55-128 --store runs/side

Every network is trained once. At each share of its latency on each target every contender gets the
same number of training images: methods use some in their search and the rest to fine-tune, the
baselines (uniform widths, Torch-Pruning's importances driven to the budget) fine-tune with all.
Every finished contest is kept in the store. What is measured here wants an idle machine:
``--prepare`` trains the originals, prices and measures, and stops; the measurements of the
exported files come last. ``METHOD,VARIANT`` is a contender, too: what ``auto`` is without one of
its parts, say ``--contenders auto auto,unsolved --options '{"auto,unsolved": {"solve": false}}'``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import AUTO, CONTENDERS, method_of, options_of
from benchmarks.contest import contest
from benchmarks.contest_field import Field, table_of
from benchmarks.contest_tables import ACCURACIES, equal_accuracy, equal_latency, summary
from benchmarks.originals import Original, train_originals
from benchmarks.output import Report, command, parser
from chipfit.cli.console import Terminal
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.targets import create
from chipfit.tasks import Task, load_task
from chipfit.workers import WorkerPool

NOTE = (
    "median (min..max) over seeds; x budget: true latency of the exported file; images of the"
    " weights: all training images that the network owes something to, images in all: with those"
    " of proposals that came to nothing; forwards only: images read without labels (statistics of"
    " batch norms, weights solved from activations, distances), {forward}. Contenders counted by"
    " lineage: {lineage}; all others by all images. NetAdapt, LANA and auto are searched once:"
    " their seeds vary the last fine-tune. What the baselines take to be driven to the budget is"
    " not in search CPU s, nor are searches that were repeated with a lower bound because their"
    " network measured above it. Pricing: of layers that no contest before had asked for, apart"
    " from the search."
)


def hold(task: Task, fields: Sequence[Field], given: Any) -> dict[str, int]:
    """Hold all contests that are not finished, seed by seed.

    Returns:
        How many units of each measured target were priced meanwhile.
    """
    before = _priced(fields, given)
    with WorkerPool(given.workers, task) as pool:
        for seed in range(given.seeds):
            waiting = [
                field.complete(job)
                for field in fields
                for share in given.shares
                for contender in given.contenders
                if not (job := field.job(share, contender, seed)).file.is_file()
            ]
            for number, (at, result) in enumerate(pool.map(contest, waiting), 1):
                told = result.get("refused") or (
                    f"int8 test {result['int8_test']:.4f}, {result['images_all']} images"
                )
                label = waiting[at].label
                Terminal().progress(f"{label}: {told} ({number} of {len(waiting)})")
    return {name: count - before[name] for name, count in _priced(fields, given).items()}


def _priced(fields: Sequence[Field], given: Any) -> dict[str, int]:
    measured = {f.target.name: f.target for f in fields if f.target.provenance == "measured"}
    with CostTable(table_of(given)) as table:
        return {n: sum(1 for _ in table.rows(t.fingerprint)) for n, t in measured.items()}


def report_on(report: Report, fields: Sequence[Field], given: Any) -> None:
    """Add all tables."""
    every = []
    forward = "counted with the others" if given.count_forward else "not counted with the others"
    note = NOTE.format(lineage=", ".join(given.count_lineage) or "none", forward=forward)
    for field in fields:
        held = field.held()
        every.append(held)
        first = held.original
        title = f"{held.net} on {given.data}, {held.target}"
        for share in held.shares:
            report.table(
                f"{title}: {share:g} of {first['cost']:.4g} {given.key}; the original has"
                f" {100 * first['test']:.2f} %, in int8 {100 * first['int8_test']:.2f} %",
                equal_latency(held, share), note,
            )  # fmt: skip
        for key, named in ACCURACIES.items():
            if rows := equal_accuracy(held, key):
                report.table(
                    f"{title}: at equal {named} accuracy", rows,
                    "the least cost at which straight lines through a contender's own points and"
                    f" the original reach {AUTO}'s median accuracy; >: none does, <: its cheapest"
                    f" point is more accurate. On the right the same for {AUTO} at the accuracy of"
                    " Torch-Pruning's best network within the budget: how many times as fast it is",
                )  # fmt: skip
    report.table("in all, by int8 accuracy", summary(every))


def read_arguments(argv: Sequence[str] | None) -> Any:
    """Return the arguments.

    Raises:
        BadInput: One is out of range, or an option is none of its contender's.
    """
    flags = parser("all contenders at equal latency and equal images")
    flags.add_argument("--nets", nargs="+", default=["tiny_mobilenet_v2", "resnet8"])
    flags.add_argument("--data", default="cifar10")
    flags.add_argument("--targets", nargs="+", default=["ethos-u55-128", "onnxruntime-cpu"])
    flags.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.5, 0.35])
    flags.add_argument("--key", default="latency_ms", help="cost that budgets bound")
    flags.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    flags.add_argument("--images", type=int, default=45000, help="of every contender")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--epochs", type=float, default=0, help="of the original; 0: the recipe's")
    flags.add_argument("--options", type=json.loads, default={}, help="JSON: by contender")
    flags.add_argument(
        "--count-lineage", nargs="*", default=["netadapt"],
        help="contenders whose proposals that came to nothing are free",
    )  # fmt: skip
    flags.add_argument(
        "--count-forward", action="store_true",
        help="images that a search only runs forwards, without labels, count like others",
    )  # fmt: skip
    flags.add_argument("--prepare", action="store_true", help="measure and price, then stop")
    flags.add_argument("--table", type=Path, help="cost table; in the store by default")
    flags.add_argument("--store", type=Path, default=Path("runs/side-by-side"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if min(given.images, given.seeds) < 1 or not all(0 < share <= 1 for share in given.shares):
        raise BadInput("--images and --seeds must be positive, --shares above 0 and at most 1")
    named = {method_of(name) for name in (*given.options, *given.count_lineage)}
    strangers = sorted(named - set(CONTENDERS))
    if strangers:
        raise BadInput(f"{', '.join(strangers)} is no contender", ", ".join(CONTENDERS))
    for name in given.contenders:
        options_of(name, given.images, 1, given.options.get(name, {}))
    return given


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, prepare, hold the contests, compare."""
    given = read_arguments(argv)
    apart = ("out", "store", "table", "workers", "prepare")
    kept: Mapping[str, Any] = {k: v for k, v in vars(given).items() if k not in apart}
    report = Report("side_by_side", kept, given.out)
    task = load_task(given.data)
    originals = [Original.of(net, given.data, given.epochs, given.store) for net in given.nets]
    train_originals(task, originals, given.workers, Terminal().progress)
    targets = [create(name) for name in given.targets]
    fields = [Field(original, target, task, given) for original in originals for target in targets]
    for field in fields:
        field.prepare()
    if given.prepare:
        return 0
    meanwhile = hold(task, fields, given)
    report_on(report, fields, given)
    if meanwhile:
        report.table(
            "units priced while contests were held, that is beside other work",
            [{"target": name, "units": count} for name, count in meanwhile.items()],
        )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
