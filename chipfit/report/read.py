# SPDX-License-Identifier: Apache-2.0
"""Read a run directory into :class:`~chipfit.report.data.RunData`.

Only a member's ``id``, ``cost`` and ``metrics`` are required; everything else may be missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from chipfit.errors import BadInput, StorageError
from chipfit.report.data import ORIGINAL, Change, ExportedFile, Layer, Member, RunData
from chipfit.report.journal import read_journal


def read_run(run_dir: str | Path) -> RunData:
    """Read a run directory.

    Args:
        run_dir: A directory that ``chipfit fit`` wrote, finished or not.

    Raises:
        BadInput: It is not a run directory, or one of its files does not hold what it should.
        StorageError: A file cannot be read.
    """
    directory = Path(run_dir)
    if not (directory / "config.json").is_file():
        raise BadInput(f"{directory} is not a run directory: it has no config.json", "see --run")
    config = _read_json(directory / "config.json")
    environment = directory / "environment.json"
    members = [_read_member(p, directory) for p in directory.glob("candidates/*/candidate.json")]
    seen: set[str] = set()
    for member in members:
        if member.id in seen:
            raise BadInput(f"{directory} has two candidates called {member.id!r}")
        seen.add(member.id)
    journal = read_journal(directory / "journal.jsonl")
    original = next((m for m in members if m.id == ORIGINAL), None)
    return RunData(
        directory=directory,
        config=config,
        environment=_read_json(environment) if environment.is_file() else {},
        members=tuple(sorted(members, key=_order)),
        budget=journal.limits or _budget(config, original, directory / "config.json"),
        journal=journal,
    )


def _budget(config: dict[str, Any], original: Member | None, path: Path) -> dict[str, float]:
    """Return the absolute bounds; fractions need the original's cost and wait for it."""
    budget = _mapping(config.get("budget"), path, "budget")
    if not budget.keys() <= {"limits", "fractions"}:
        return numbers(budget, path, "budget")
    cost = original.cost if original else {}
    fractions = numbers(budget.get("fractions"), path, "budget.fractions")
    limits = numbers(budget.get("limits"), path, "budget.limits")
    return limits | {key: part * cost[key] for key, part in fractions.items() if key in cost}


def _order(member: Member) -> tuple[Any, ...]:
    step = math.inf if member.step is None else member.step
    words = re.split(r"(\d+)", member.id)
    natural = tuple((0, int(w), "") if w.isdigit() else (1, 0, w) for w in words)
    return member.id != ORIGINAL, step, natural


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is not JSON: {error}", "continue the run to write it again"
        ) from None
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold a JSON object, not {type(data).__name__}")
    return data


def numbers(value: Any, path: Path, what: str) -> dict[str, float]:
    """Return the finite numbers of a JSON object; null, NaN and infinity mean unknown.

    Raises:
        BadInput: ``value`` is no object, or holds something that is not a number.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadInput(f"{path}: {what} must be an object, not {value!r}")
    result = {}
    for key, item in value.items():
        number = optional_number(item, path, f"{what}.{key}")
        if number is not None:
            result[key] = number
    return result


def optional_number(value: Any, path: Path, what: str) -> float | None:
    """Return a finite number, or ``None`` for null, NaN and infinity.

    Raises:
        BadInput: ``value`` is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{path}: {what} must be a number, not {value!r}")
    return value if math.isfinite(value) else None


def _read_member(path: Path, run: Path) -> Member:
    data = _read_json(path)
    for key, kind in (("id", str), ("cost", dict), ("metrics", dict)):
        if not isinstance(data.get(key), kind):
            raise BadInput(f"{path} has no {key!r}", "continue the run to write it again")
    step = optional_number(data.get("step"), path, "step")
    cpu = numbers(data.get("cpu"), path, "cpu")
    verify = _mapping(data.get("verify"), path, "verify")
    return Member(
        id=data["id"],
        metrics=numbers(data["metrics"], path, "metrics"),
        cost=numbers(data["cost"], path, "cost"),
        step=None if step is None else int(step),
        parent=str(data.get("parent") or ""),
        architecture=_mapping(data.get("architecture"), path, "architecture"),
        provenance=str(data.get("provenance") or ""),
        spread=numbers(data.get("spread"), path, "spread"),
        predicted=numbers(data.get("predicted"), path, "predicted"),
        cpu_latency_ms=cpu.get("latency_ms"),
        cpu_spread_ms=cpu.get("spread_ms"),
        files=_read_files(_mapping(data.get("files"), path, "files"), run),
        verify={name: numbers(v, path, f"verify.{name}") for name, v in verify.items()},
        layers=tuple(_read_layer(item, path) for item in _list(data.get("layers"), path, "layers")),
        changes=tuple(
            _read_change(item, path) for item in _list(data.get("changes"), path, "changes")
        ),
    )


def _mapping(value: Any, path: Path, what: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise BadInput(f"{path}: {what} must be an object, not {value!r}")
    return value or {}


def _list(value: Any, path: Path, what: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadInput(f"{path}: {what} must be a list of objects")
    return value


def _read_files(files: dict[str, Any], run: Path) -> tuple[ExportedFile, ...]:
    """Keep files inside the run only: a report must not link to anything else."""
    result = []
    for name, value in files.items():
        path = PurePosixPath(str(value or ""))
        outside = path.is_absolute() or ".." in path.parts
        if not path.parts or outside or ":" in path.parts[0]:
            continue
        place = run / path
        size = place.stat().st_size if place.is_file() else None
        result.append(ExportedFile(name, str(path), size))
    return tuple(result)


def _read_layer(item: dict[str, Any], path: Path) -> Layer:
    name, output = str(item.get("name") or "?"), item.get("output")
    return Layer(
        name=name,
        kind=str(item.get("kind") or ""),
        output=tuple(output) if isinstance(output, list) else (),
        cost=numbers(item.get("cost"), path, f"layers[{name}].cost"),
    )


def _read_change(item: dict[str, Any], path: Path) -> Change:
    def ending(suffix: str) -> dict[str, float]:
        found = {k.removesuffix(suffix): v for k, v in item.items() if k.endswith(suffix)}
        return numbers(found, path, f"changes{suffix}")

    step = optional_number(item.get("step"), path, "changes.step")
    return Change(
        step=None if step is None else int(step),
        group=str(item.get("group") or "?"),
        before=item.get("from"),
        after=item.get("to"),
        saved=ending("_saved"),
        metrics_before=ending("_before"),
        metrics_after=ending("_after"),
    )
