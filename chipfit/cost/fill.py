# SPDX-License-Identifier: Apache-2.0
"""Filling a cost table: absent units are priced in chunks, in parallel where the target allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chipfit.cost.cost import Cost

if TYPE_CHECKING:
    from chipfit.cost.table import CostTable
    from chipfit.targets.base import Target, Unit
    from chipfit.workers import WorkerPool

#: Units per chunk. Small enough that a kill loses seconds; a chunk is also what a measured target
#: interleaves in one session.
CHUNK = 8
#: Below this many absent units, starting processes costs more than it saves.
PARALLEL_FROM = 3 * CHUNK


def fill(
    table: CostTable,
    target: Target,
    units: Sequence[Unit],
    pool: WorkerPool | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    chunk: int = CHUNK,
) -> list[Cost]:
    """Return the cost of every unit, in order; see :meth:`CostTable.fill`.

    With ``chunk`` a caller that may stop between chunks sets how much is priced at once.
    """
    table.anchor(target)
    fingerprint = target.fingerprint
    keys = [unit.key for unit in units]
    known = table.get_many(fingerprint, keys)
    absent = list({unit.key: unit for unit in units if unit.key not in known}.values())
    if absent:
        chunks = [absent[i : i + chunk] for i in range(0, len(absent), chunk)]
        if not target.parallel or len(absent) < PARALLEL_FROM:
            pool = None
        done = 0
        for some, costs in _priced(target, chunks, pool):
            table.put_many(
                fingerprint,
                [(u.key, c, describe(u)) for u, c in zip(some, costs, strict=True)],
            )
            done += len(some)
            if on_progress is not None:
                on_progress(done, len(absent))
        known = table.get_many(fingerprint, keys)
    return [known[key] for key in keys]


def describe(unit: Unit) -> str:
    """Return one line that tells a reader of the table what ``unit`` is.

    The operators that are charged are spelled out; the others are their context.
    """
    parts = []
    for i in unit.focus:
        op = unit.workload.nodes[i].op
        shapes = "+".join("x".join(map(str, shape)) for shape in op.inputs)
        extra = " ".join(
            f"{name}={'x'.join(map(str, op[name]))}"
            for name in ("kernel", "stride")
            if op.get(name)
        )
        if op.get("groups", 1) > 1:
            extra += f" groups={op['groups']}"
        act = "" if op.activation == "none" else f" {op.activation}"
        parts.append(f"{op.kind} {shapes}>{'x'.join(map(str, op.output))} {extra}{act}".strip())
    context = len(unit.workload) - len(unit.focus)
    return "; ".join(parts) + (f" (between {context} neighbours)" if context else "")


def _priced(
    target: Target, chunks: list[list[Unit]], pool: WorkerPool | None
) -> Iterator[tuple[list[Unit], list[Cost]]]:
    """Yield each chunk with its costs, as soon as it is done."""
    if pool is None:
        for chunk in chunks:
            yield chunk, target.cost_units(chunk)
        return
    for i, costs in pool.map(_price, [(target, chunk) for chunk in chunks]):
        yield chunks[i], costs


def _price(_: Any, item: tuple[Target, list[Unit]]) -> list[Cost]:
    target, chunk = item
    return target.cost_units(chunk)
