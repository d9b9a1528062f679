# SPDX-License-Identifier: Apache-2.0
"""LANA's claims in small: do scores add up, is the integer programme worth it, how fast is it?

    python -m benchmarks.lana_claims --store runs/lana-claims

A teacher of eight convolutions is trained; up to eight alternatives of every block learn from its
activations. Then (1) the sum of their scores is compared with the true loss of random networks,
(2) the integer programme, a greedy choice and random choices are compared at three budgets, before
and after the same short distillation, and (3) the solver is timed on spaces of up to 10^100
architectures. Everything finished is kept in the store; a benchmark that was cut off continues.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lana_choices import Values, drawn_rows, greedy_row, random_rows, total
from benchmarks.lana_judging import judge_all
from benchmarks.lana_subject import Subject, prepare
from benchmarks.output import Report, command, parser, spread
from benchmarks.ranking import kendall, spearman
from chipfit.allocate import solve
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.targets import create
from chipfit.tasks import load_task
from chipfit.train.randomness import stream_seed

Row = dict[str, Any]


def correlation(subject: Subject, given: Any) -> Row:
    """Judge random networks and compare their losses with sums."""
    rows = drawn_rows(subject.values, given.networks, subject.seed)
    jobs = [subject.job(row, given, False) for row in rows]
    results = judge_all(subject.problem.pool, jobs, Terminal().progress)
    scores = [-total(subject.values, row) for row in rows]
    errors = [total(subject.errors, row) for row in rows]
    row: Row = {"seed": subject.seed, "networks": len(rows)}
    for name, guesses in (("scores", scores), ("errors", errors)):
        for key, label in (("loss", "loss"), ("val_loss", "val loss")):
            truth = [r[key] for r in results]
            row[f"rho {name}/{label}"] = spearman(guesses, truth)
            row[f"tau {name}/{label}"] = kendall(guesses, truth)
    kept = subject.job([0] * len(subject.values), given, False)
    original = judge_all(subject.problem.pool, [kept], Terminal().progress)[0]
    rises = [r["loss"] - original["loss"] for r in results]
    ratios = [rise / s for rise, s in zip(rises, scores, strict=True) if s > 0]
    row["true rise / sum of scores"] = spread(ratios) if ratios else None
    return row


def allocations(subject: Subject, given: Any) -> list[Row]:
    """Choose at every budget in three ways, and judge what was chosen with equal work."""
    plan, values, key = subject.plan, subject.values, subject.key
    cost = plan.costs.of(key)
    whole = subject.problem.original_cost[key]
    asked: list[tuple[int, str, list[int], Any]] = []
    for percent in given.budgets:
        limit = whole * percent / 100
        try:
            best = plan.choose(values, {key: limit})[0]
        except InfeasibleBudget as error:
            Terminal().progress(f"{percent} %: {error}")
            continue
        asked.append((percent, "integer programme", list(best.choice), best.seconds))
        greedy = greedy_row(cost, values, limit)
        if greedy is not None:
            asked.append((percent, "greedy", greedy, None))
        for number, row in enumerate(
            random_rows(cost, values, limit, given.randoms, stream_seed(subject.seed, percent))
        ):
            asked.append((percent, f"random {number + 1}", row, None))
    jobs = [subject.job(row, given, True) for _, _, row, _ in asked]
    results = judge_all(subject.problem.pool, jobs, Terminal().progress)
    prices: Sequence[float] | Values = ()
    if asked:
        prices = cost(np.array([row for _, _, row, _ in asked]))
    return [
        {"budget %": percent, "way": way, "seed": subject.seed, "cost %": 100 * price / whole,
         "sum of scores": -total(values, row), **result, "solver s": seconds}
        for (percent, way, row, seconds), price, result in zip(asked, prices, results, strict=True)
    ]  # fmt: skip


def merged(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row for every budget and way, with the spread over seeds (and random choices)."""
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["budget %"], row["way"].split(" ")[0]), []).append(row)
    return [
        {
            "budget %": percent, "way": way, "cost %": spread([r["cost %"] for r in own]),
            "sum of scores": spread([r["sum of scores"] for r in own]),
            "loss before": spread([r["loss"] for r in own]),
            "val % before": spread([100 * r["val"] for r in own]),
            "val loss after": spread([r["val_loss_after"] for r in own]),
            "val % after": spread([100 * r["val_after"] for r in own]),
            "images": own[0]["images"],
        }
        for (percent, way), own in sorted(groups.items(), key=lambda g: (-g[0][0], g[0][1]))
    ]  # fmt: skip


def solver_row(blocks: int, options: int, instances: int) -> Row:
    """Time the solver on random pools of a size: cheaper options raise the loss more, mostly."""
    seconds, gaps, proven = [], [], 0
    for seed in range(instances):
        rng = np.random.default_rng(seed)
        costs = rng.uniform(0.0, 1.0, (blocks, options)) * rng.uniform(0.5, 2.0, (blocks, 1))
        values = -rng.exponential(1.0, (blocks, options)) * (1.1 - costs / costs.max())
        budget = float(0.3 * costs.max(axis=1).sum())
        found = solve(list(values), [list(costs)], [budget], time_limit_s=60.0)
        seconds.append(found.seconds)
        gaps.append(found.gap)
        proven += found.status == "optimal"
    return {
        "blocks": blocks, "options": options,
        "architectures": f"10^{blocks * np.log10(options):.0f}", "seconds": spread(seconds),
        "proven optimal": f"{proven} of {instances}", "largest gap": max(gaps),
    }  # fmt: skip


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, choose, judge and time."""
    flags = parser("LANA's claims in small")
    flags.add_argument("--target", default="ethos-u55-128")
    flags.add_argument("--key", default="latency_ms", help="what is bounded")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--steps", type=int, default=1600, help="of the teacher, 128 images each")
    flags.add_argument("--distil-steps", type=int, default=400, help="of every replacement")
    flags.add_argument("--short-steps", type=int, default=150, help="of every recovery")
    flags.add_argument("--score-images", type=int, default=2048)
    flags.add_argument("--networks", type=int, default=50, help="for the correlation")
    flags.add_argument("--randoms", type=int, default=3, help="random choices at every budget")
    flags.add_argument("--budgets", nargs="*", type=int, default=[70, 50, 35], help="percent")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument(
        "--sizes", nargs="*", default=["8x9", "20x32", "50x100", "44x197"], help="BLOCKSxOPTIONS"
    )
    flags.add_argument("--instances", type=int, default=5, help="timed of every size")
    flags.add_argument("--store", type=Path, default=Path("runs/lana-claims"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    counts = (given.steps, given.distil_steps, given.short_steps, given.networks, given.seeds)
    if min(counts) < 1 or any(not 0 < b <= 100 for b in given.budgets):
        raise BadInput("steps, networks and seeds must be positive, budgets 1 to 100 percent")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "workers")}
    report = Report("lana_claims", kept, given.out)
    task, target = load_task(given.data), create(given.target)
    facts, correlations, rows = [], [], []
    for seed in range(given.seeds):
        subject = prepare(task, target, given, seed)
        try:
            pool = subject.plan.pool()
            known = [e[i] for e, v in zip(subject.errors, subject.values, strict=True)
                     for i in np.flatnonzero(np.isfinite(v)) if i]  # fmt: skip
            accuracy = task.evaluate(subject.problem.net)[task.metric]
            facts.append({
                "seed": seed, "teacher val %": 100 * accuracy, "blocks": len(pool),
                "replacements": sum(map(len, pool.values())),
                "additive costs": subject.plan.additive,
                "median relative error": statistics.median(known),
            })  # fmt: skip
            correlations.append(correlation(subject, given))
            rows += allocations(subject, given)
        finally:
            subject.problem.pool.close()
    report.table("teachers and their replacements", facts,
                 "relative error: squared error of a replacement's output over the variance of the"
                 " block's")  # fmt: skip
    report.table(
        "do scores add up?", correlations,
        "rho: Spearman, tau: Kendall, of the sum of scores (errors: of relative errors) with the"
        " true loss of random networks, batch norms recalibrated; the ratio is the median one"
        " (smallest..largest)",
    )  # fmt: skip
    if rows:
        report.table(
            "the same work spent on what each chose",
            merged(rows),
            "loss: second half of the training data; after: the short distillation; median"
            " (smallest..largest) over seeds and random choices",
        )
        report.table("every network", rows)
    timed = [tuple(map(int, size.split("x"))) for size in given.sizes]
    if timed:
        report.table(
            "solve time",
            [solver_row(b, o, given.instances) for b, o in timed],
            "random scores and costs; one budget at 30 % of the dearest architecture",
        )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
