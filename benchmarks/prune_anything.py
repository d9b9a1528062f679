# SPDX-License-Identifier: Apache-2.0
"""How many of timm's architectures can be narrowed to 70 % of their MACs, and still are right.

    python -m benchmarks.prune_anything --store runs/prune-anything

Every channel group is narrowed by one factor, to multiples of 8 where it is wide enough; channels
of small L2 norm go. The narrowed network has to run, to export to ONNX and to int8 TFLite where the
original does, and to compute what the masked network computes. Torch-Pruning narrows the same
networks by its magnitude pruner, the layer of the classes left alone; it has no masked network, so
that it is not asked for that. Every model runs in a child process with limits on memory and time,
and its results stand in ``--store``: the same command continues where it stopped. Needs
``chipfit[timm]`` and Torch-Pruning.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, local
from typing import Any

from benchmarks.child import Child
from benchmarks.coverage import listed
from benchmarks.output import Report, command, parser
from benchmarks.prune_anything_child import WAYS
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.flow.timm_zoo import timm_models

Answer = dict[str, Any]
#: How a network that does not run is told of.
FAILING = re.compile(r"fails on an input of shape \(.*?\): (.*?)(?: \(give|$)")


def stored(path: Path) -> dict[tuple[str, str], Answer]:
    """Return the answers of earlier runs by model and way."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {(row["model"], row["way"]): row for row in rows}


def measure(
    names: Sequence[str], path: Path, share: float, step: int, seconds: float, memory_gib: float,
    workers: int = 1,
) -> list[Answer]:  # fmt: skip
    """Return the answers of all models and ways; those that ``path`` holds are not asked again."""
    known, terminal, lock, children = stored(path), Terminal(), Lock(), list[Child]()
    own, over = local(), Event()
    path.parent.mkdir(parents=True, exist_ok=True)

    def start() -> None:
        own.child = Child("benchmarks.prune_anything_child", memory_gib)
        children.append(own.child)

    def ask(number: int, name: str) -> None:
        for way in WAYS:
            if (name, way) in known:
                continue
            terminal.progress(f"{number} of {len(names)}: {name}, {way}")
            answer = own.child.ask((name, way, share, step), seconds)
            if over.is_set():  # the child was stopped: that is no answer
                return
            with lock, path.open("a") as file:
                known[name, way] = {"model": name, "way": way, **answer}
                file.write(json.dumps(known[name, way]) + "\n")

    with ThreadPoolExecutor(workers, initializer=start) as pool:
        try:
            for done in [pool.submit(ask, i, name) for i, name in enumerate(names, 1)]:
                done.result()
        finally:
            over.set()
            pool.shutdown(cancel_futures=True, wait=False)
            for child in children:
                child.stop()
    return [known[name, way] for way in WAYS for name in names]


def summary(rows: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return one line per way."""
    lines = []
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        narrow = [row for row in own if "share" in row]
        same = sum(row["difference"] is not None and row["difference"] < 1e-6 for row in narrow)
        kept = {
            key: [row[key] for row in narrow if row[key] != "not before"]
            for key in ("onnx", "int8")
        }
        lines.append({
            "way": way, "models": len(own), "narrowed": len(narrow),
            "run": sum(row["runs"] for row in narrow),
            **{
                f"{name}, of those before": f"{kept[key].count('yes')} of {len(kept[key])}"
                for name, key in (("ONNX", "onnx"), ("int8 TFLite", "int8"))
            },
            "equal the masked": same if way == "chipfit" else None,
            "all of it": sum(row.get("ok", False) for row in own),
            "seconds": round(sum(row.get("seconds", 0.0) for row in own), 1),
        })  # fmt: skip
    return lines


def failures(rows: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return why models were not narrowed well, the most frequent reasons first."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if not row.get("ok"):
            found[row["way"], _reason(row)].append(row["model"])
    ranked = sorted(found.items(), key=lambda item: (WAYS.index(item[0][0]), -len(item[1])))
    return [
        {"way": way, "reason": reason, "models": len(names), "for instance": names[0]}
        for (way, reason), names in ranked
    ]


def _reason(row: Mapping[str, Any]) -> str:
    if "reason" in row:  # reasons that differ in sizes only are one
        failing = FAILING.search(row["reason"])
        reason = f"narrowed, it fails: {failing[1]}" if failing else row["reason"]
        return re.sub(r"\d+(?![\d%])", "N", reason) if not row.get("cut") else reason
    if not row["runs"]:
        return "another output"
    if row["onnx"] not in ("yes", "not before"):
        return f"ONNX: {row['onnx']}"
    return "int8 TFLite is lost" if row["int8"] == "lost" else "differs from the masked network"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Narrow the models and print the tables."""
    flags = parser("which of timm's networks can be narrowed")
    flags.add_argument("--models", nargs="+", help="instead of the list in coverage_models.txt")
    flags.add_argument("--share", type=float, default=0.7, help="of the MACs, at most")
    flags.add_argument("--step", type=int, default=8, help="widths are multiples of it")
    flags.add_argument("--seconds-per-model", type=float, default=300.0)
    flags.add_argument("--memory-gib", type=float, default=10.0, help="of each process")
    flags.add_argument("--store", type=Path, default=Path("runs/prune-anything"))
    flags.add_argument("--limit", type=int, help="only the first of the list")
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    names = (given.models or listed())[: given.limit]
    unknown = [name for name in names if name not in timm_models()]
    if unknown:
        raise BadInput(f"timm has no {', '.join(unknown)}", "see timm.list_models()")
    path = given.store / f"{given.share:g}-{given.step}.jsonl"
    rows = measure(
        names, path, given.share, given.step, given.seconds_per_model, given.memory_gib,
        max(1, given.workers),
    )  # fmt: skip
    settings = {"models": len(names), "share": given.share, "step": given.step}
    report = Report("prune_anything", settings, given.out)
    report.table(
        f"narrowed to {given.share:.0%} of the MACs", summary(rows),
        "All of it: runs with the same output shapes, still runs in ONNX Runtime and has its int8 "
        "TFLite file where the original does, and (chipfit) equals the masked network within 1e-6.",
    )  # fmt: skip
    bad = failures(rows)
    if bad:
        report.table("why not", bad)
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
