# SPDX-License-Identifier: Apache-2.0
"""How many of timm's architectures are traced, and costed on each target, and why the others not.

    python -m benchmarks.coverage --seconds-per-model 60

Needs ``chipfit[timm]``. A family is a module of timm. Every model runs in a child process with a
limit on memory, every step with a limit on time, and its results stand in a file of JSON lines in
``--keep``: the same command continues where it stopped. MACs are compared with PyTorch's
``FlopCounterMode``, parameters with timm's own count.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child
from benchmarks.output import Report, command, parser
from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.flow.timm_zoo import timm_models
from chipfit.targets import TARGETS

MODELS = Path(__file__).parent / "coverage_models.txt"
#: What is asked for where it is registered.
WANTED = ("analytic", "ethos-u55-128", "onnxruntime-cpu", "cortex-m55")
#: Largest difference, relative to the largest output, that float32 rounding and folding explain.
SAME = 2e-3
Result = dict[str, Any]


def listed() -> list[str]:
    """Return the architectures of :data:`MODELS`."""
    lines = MODELS.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def stored(path: Path) -> dict[str, Result]:
    """Return the results of earlier runs by model; the last of a model and a target counts."""
    known: dict[str, Result] = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for row in (json.loads(line) for line in lines if line.endswith("}")):
        before = known.get(row["model"], {"targets": {}})
        known[row["model"]] = {**row, "targets": {**before["targets"], **row["targets"]}}
    return known


def measure(
    names: Sequence[str], targets: Sequence[str], path: Path, seconds: float, memory_gib: float,
    minutes: float,
) -> dict[str, Result]:  # fmt: skip
    """Return the results of the models; those that ``path`` holds are not computed again.

    When ``minutes`` are over, what is left to do is left out.
    """
    families, known, end = timm_models(), stored(path), time.monotonic() + 60 * minutes
    terminal, child = Terminal(), Child("benchmarks.coverage_child", memory_gib)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for i, name in enumerate(names):
            row = known.get(name) or {"model": name, "family": families[name], "targets": {}}
            left = [target for target in targets if target not in row["targets"]]
            if ("trace" in row and not left) or time.monotonic() > end:
                continue
            terminal.progress(f"{i + 1} of {len(names)}: {name}")
            if "trace" not in row:
                row["trace"] = child.ask([name, "trace"], seconds * 3)
            for target in left:
                row["targets"][target] = (
                    child.ask([name, target], seconds) if "nodes" in row["trace"]
                    else {"reason": "not traced"}
                )  # fmt: skip
            known[name] = row
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    finally:
        child.stop()
    return {name: known[name] for name in names if name in known}


def by_family(rows: Iterable[Result], targets: Sequence[str]) -> list[dict[str, Any]]:
    """Return one line per family with counts of models, and a line with all of them."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for row in rows:
        groups[row["family"]].append(row)
    lines = [_line(family, groups[family], targets) for family in sorted(groups)]
    whole = [row for own in groups.values() for row in own]
    return [*lines, _line(f"all {len(groups)} families", whole, targets)]


def _line(name: str, rows: Sequence[Result], targets: Sequence[str]) -> dict[str, Any]:
    traced = [row["trace"] for row in rows if "nodes" in row["trace"]]
    return {
        "family": name, "models": len(rows), "traced": len(traced),
        "no unknown operator": sum(not trace["unsupported"] for trace in traced),
        "computes the same": sum("parity" in t and t["parity"] < SAME for t in traced),
        "MACs agree": sum(_macs_agree(trace) for trace in traced),
        "parameters agree": sum(_parameters_agree(trace) for trace in traced),
        **{t: _share(row["targets"].get(t) for row in rows) for t in targets},
        "coupled": _share({"ok": t["coupling"] == "found"} for t in traced if "coupling" in t),
    }  # fmt: skip


def _share(results: Iterable[Mapping[str, Any] | None]) -> str:
    """Return how many succeeded of those that were tried."""
    tried = [result for result in results if result is not None]
    return f"{sum(result.get('ok', False) for result in tried)}/{len(tried)}"


def _macs_agree(trace: Mapping[str, Any]) -> bool:
    return bool(trace.get("macs_counted") == trace["macs"])


def _parameters_agree(trace: Mapping[str, Any]) -> bool:
    return bool(trace["params_reached"] == trace["params"])


def reasons(rows: Iterable[Result], targets: Sequence[str]) -> list[dict[str, Any]]:
    """Return why models were not traced, or not costed, most frequent first."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for reason in _trace_reasons(row["trace"]):
            found["trace", reason].append(row["model"])
        for target in targets:
            result = row["targets"].get(target)
            if result is not None and not result.get("ok"):
                for reason in result.get("reasons") or [result["reason"]]:
                    found[target, reason].append(row["model"])
    order = {name: i for i, name in enumerate(("trace", *targets))}
    ranked = sorted(found.items(), key=lambda item: (order[item[0][0]], -len(item[1])))
    return [
        {"step": step, "reason": reason, "models": len(names), "for instance": names[0]}
        for (step, reason), names in ranked
    ]


def _trace_reasons(trace: Mapping[str, Any]) -> list[str]:
    if "nodes" not in trace:
        return [trace["reason"]]
    found = [f"unknown operator {name}" for name in trace["unsupported"]]
    if not _macs_agree(trace):
        counted = trace.get("macs_counted")
        found.append(
            "PyTorch's counter fails" if counted is None
            else f"MACs: PyTorch counts {'more' if counted > trace['macs'] else 'fewer'}"
        )  # fmt: skip
    if not _parameters_agree(trace):
        found.append("parameters that the output does not depend on")
    if trace.get("coupling", "found") != "found":
        found.append(f"no coupling of channels: {trace['coupling']}")
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Cover the models and print the tables."""
    flags = parser("which of timm's networks are traced and costed")
    flags.add_argument("--models", nargs="+", help="instead of the list in coverage_models.txt")
    registered = {entry.name for entry in TARGETS}
    default = [name for name in WANTED if name in registered]
    flags.add_argument("--targets", nargs="*", default=default)
    flags.add_argument("--seconds-per-model", type=float, default=60.0, help="on each target")
    flags.add_argument("--memory-gib", type=float, default=10.0)
    flags.add_argument("--keep", type=Path, help="file of JSON lines; coverage.jsonl in --out")
    flags.add_argument("--minutes", type=float, default=600.0, help="for all models together")
    flags.add_argument("--limit", type=int, help="only the first of the list")
    given = flags.parse_args(argv)
    names = (given.models or listed())[: given.limit]
    unknown = [name for name in names if name not in timm_models()]
    if unknown:
        raise BadInput(f"timm has no {', '.join(unknown)}", "see timm.list_models()")
    path = given.keep or given.out / "coverage.jsonl"
    results = measure(
        names, given.targets, path, given.seconds_per_model, given.memory_gib, given.minutes
    )
    rows = list(results.values())
    settings = {
        "models": len(rows), "targets": given.targets,
        "seconds_per_model": given.seconds_per_model,
    }  # fmt: skip
    report = Report("coverage", settings, given.out)
    cut = Counter(
        target for row in rows for target, result in row["targets"].items() if result.get("cut")
    )
    note = ", ".join(f"{target} {n}" for target, n in cut.items()) or "none"
    report.table(
        "timm's architectures by family", by_family(rows, given.targets),
        "Costed of tried, cheapest models first. Cut off by the time limit of "
        f"{given.seconds_per_model:g} s: {note}. Computes the same: "
        "the traced operators, run with the network's weights, against the network itself. Where "
        "PyTorch counts more MACs, the network computes tables (of positions) from the size of "
        "the image alone; they are constants, which a device need not compute.",
    )  # fmt: skip
    found = reasons(rows, given.targets)
    if found:
        report.table("why not", found)
    report.write()
    traced = sum("nodes" in row["trace"] and not row["trace"]["unsupported"] for row in rows)
    return 0 if traced >= 0.95 * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
