# SPDX-License-Identifier: Apache-2.0
"""The search of a contest of :mod:`benchmarks.side_by_side`, counted, and kept when it is over."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from benchmarks.contenders import ONCE, method_of
from benchmarks.counting import Count, CountingTask, InProcessPool, cpu_s
from benchmarks.within import costs_beside
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.files import write_bytes
from chipfit.methods.base import METHODS
from chipfit.runs.run import Run
from chipfit.targets import create
from chipfit.tasks import Task
from chipfit.train.jobs import Bench

if TYPE_CHECKING:
    from benchmarks.contest import Contest

#: Searches of a method whose networks measure above the budget, at most.
SEARCHES = 4


def reason(error: Exception) -> str:
    """Return the first sentence of an error."""
    return str(error).splitlines()[0].partition(". ")[0]


def searched(task: Task, net: nn.Module, job: Contest) -> tuple[dict[str, Any], nn.Module | None]:
    """Return what a method's search took and its network, which is recalled where it was finished.

    A search that was cut off starts over: images and time would be those of a part of it. So does
    one whose network measures above the budget, with its bound lowered by as much: predictions are
    off by a few percent, and baselines are measured, too. The last one counts.
    """
    seed = 0 if method_of(job.contender) in ONCE else job.seed
    folder = job.folder / f"search-{seed}"
    file = folder / "search.json"
    if not file.is_file():
        for _ in range(SEARCHES):
            shutil.rmtree(folder, ignore_errors=True)
            found = _search(task, net, job, seed, folder)
            over = 0.0 if "refused" in found else _over(task, net, job, folder, found["id"])
            if over <= 1:
                break
            job = replace(job, bound=(job.bound or job.limit) / over)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        write_bytes(file, (json.dumps(found) + "\n").encode())
    found = json.loads(file.read_text())
    if "refused" in found:
        return found, None
    return found, Run.read(folder).candidate(found["id"]).build(net, folder)


def _over(task: Task, net: nn.Module, job: Contest, folder: Path, name: str) -> float:
    """Return the measured cost of a candidate in budgets; 0 where costs are not measured."""
    target, key = create(job.opponent.target), job.opponent.key
    if target.provenance != "measured":
        return 0.0
    start = Run.read(folder).candidate(name).build(net, folder)
    (mine,) = costs_beside(target, task.example_input(), net, job.opponent.cost, [start])
    return mine[key] / job.limit


def _search(task: Task, net: nn.Module, job: Contest, seed: int, folder: Path) -> dict[str, Any]:
    count = Count(all=job.forward)
    counting = CountingTask(task, count)
    # Worker processes would have a network of their own, too.
    pool = InProcessPool(Bench(copy.deepcopy(net), counting), count)
    problem = job.problem(counting, net, pool, seed)
    name = method_of(job.contender)
    method = METHODS.get(name).value()
    run = Run.open(folder, {"contender": job.contender, "seed": seed, "share": job.share})
    before = cpu_s()
    try:
        method.check(problem)
        last = list(method.search(problem, run))[-1]
        run.save(last)
        done = run.recall(f"{name}/step/{last.step}") or {}
    except (BadInput, InfeasibleBudget) as error:
        return {"refused": reason(error)}
    finally:
        run.close()
    whole, price_cpu_s = cpu_s() - before, problem.table.cpu_s  # type: ignore[attr-defined]
    facts = ", ".join(str(done[key]) for key in ("group", "width") if key in done)
    return {
        "id": last.id, "how": f"{last.id}: {facts}"[:80],
        "predicted": last.predicted[job.opponent.key], "images_all": count.images,
        "images_weights": count.behind(folder / last.weights),
        "images_forward": count.forward, "cpu_s": whole - price_cpu_s, "price_cpu_s": price_cpu_s,
    }  # fmt: skip
