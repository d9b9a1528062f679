# SPDX-License-Identifier: Apache-2.0
"""Cost tables as CSV: to read in a spreadsheet, and to carry measurements between machines."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from chipfit.cost.cost import COST_KEYS, Cost
from chipfit.cost.table import CALIBRATION, CostTable, Row
from chipfit.errors import BadInput, StorageError

_HEAD = ["fingerprint", "unit", "description", "created", "provenance"]
_COLUMNS = _HEAD + list(COST_KEYS) + [f"{key}_spread" for key in COST_KEYS]
_FACT = "fact:"


def export_csv(table: CostTable, path: Path, fingerprint: str | None = None) -> int:
    """Write all rows, of one fingerprint where given, and return their number.

    Facts of a fingerprint (a measured target's reference latency) stand in rows whose unit is
    ``fact:NAME`` with the value as description, so that the file is complete by itself.

    Raises:
        StorageError: The file cannot be written.
    """
    rows = list(table.rows(fingerprint))
    try:
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, restval="")
            writer.writeheader()
            for name in sorted({row[0] for row in rows}):
                for fact, value in sorted(table.facts(name).items()):
                    writer.writerow(
                        {"fingerprint": name, "unit": _FACT + fact, "description": repr(value)}
                    )
            writer.writerows(_record(row) for row in rows)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    return len(rows)


def import_csv(table: CostTable, path: Path) -> int:
    """Add the rows of a file that :func:`export_csv` wrote; present rows stay. Return their number.

    Raises:
        BadInput: The file cannot be read, or is not such a file.
    """
    try:
        with Path(path).open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != _COLUMNS:
                raise BadInput(f"{path} is not an exported cost table", "its columns differ")
            records = list(reader)
        if any(None in record or None in record.values() for record in records):
            raise BadInput(f"{path} has a line with too few or too many columns", "export it again")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    try:
        rows = list(_rows(records))
        facts = [
            (r["fingerprint"], {r["unit"].removeprefix(_FACT): _number(r["description"])})
            for r in records
            if r["unit"].startswith(_FACT)
        ]
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{path} holds a value that is no number: {error}", "export it again"
        ) from error
    for fingerprint, fact in facts:
        name = next(iter(fact))
        stored = table.facts(fingerprint).get(name, fact[name])
        if stored != fact[name] and not name.startswith(CALIBRATION):
            raise BadInput(
                f"{path} was measured with {name}={fact[name]:g}, the table with {stored:g}",
                "such rows are in different currencies; import into a new table",
            )
    for fingerprint, fact in facts:
        table.set_facts(fingerprint, fact)
    table.restore(rows)
    return len(rows)


def _record(row: Row) -> dict[str, object]:
    fingerprint, unit, cost, description, created = row
    record: dict[str, object] = dict(
        zip(_HEAD, (fingerprint, unit, description, repr(created), cost.provenance), strict=True)
    )
    record.update({key: repr(value) for key, value in cost.values.items()})
    record.update({f"{key}_spread": repr(value) for key, value in cost.spread.items()})
    return record


def _rows(records: list[dict[str, str]]) -> Iterator[Row]:
    for record in records:
        if record["unit"].startswith(_FACT):
            continue
        values = {key: _number(record[key]) for key in COST_KEYS if record[key]}
        spread = {
            key: _number(record[f"{key}_spread"]) for key in COST_KEYS if record[f"{key}_spread"]
        }
        cost = Cost(values, record["provenance"], spread)
        created = _number(record["created"])
        yield record["fingerprint"], record["unit"], cost, record["description"], created


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value
