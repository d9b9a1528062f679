# SPDX-License-Identifier: Apache-2.0
"""``chipfit collapse``: merge what is linear."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import input_option, json_option, target_option

if TYPE_CHECKING:
    from chipfit.flow.network import InputShape

#: Names that fit on a line of the table.
_SHOWN = 3


@click.command("collapse")
@click.argument("net")
@target_option
@input_option
@click.option("--weights", type=click.Path(path_type=Path), help="A safetensors file.")
@click.option("--table", type=click.Path(path_type=Path), help="Cost table; default: the user's.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for the file.")
@json_option
def collapse_command(
    net: str, target: str, shape: InputShape | None, weights: Path | None, table: Path | None,
    output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Merge linear layers of NET, exactly, where a target gains by it."""
    from chipfit.flow.collapse import collapse

    terminal = Terminal(as_json)
    found = collapse(
        net, target, shape, weights=weights, table=table, output=output,
        progress=terminal.progress,
    )  # fmt: skip
    if as_json:
        terminal.document(found.to_json())
        return
    rows = [
        {"rewrite": s.kind, "layers": _few(s.modules), "into": _few(s.into) or None,
         f"{found.key} saved": s.before - s.after, found.key: s.after}
        for s in found.steps
    ]  # fmt: skip
    columns = ["rewrite", "layers", "into", f"{found.key} saved", found.key]
    terminal.table(rows, columns, f"{found.network} on {found.fingerprint}, predicted")
    for key, value in found.after.values.items():
        terminal.say(f"{key:16} {found.before[key]:,.6g} -> {value:,.6g}  "
                     f"({found.after.provenance})")  # fmt: skip
    terminal.say(f"{'operators':16} {found.operators[0]} -> {found.operators[1]}")
    terminal.say(f"largest difference of the outputs: {found.max_abs_error:.3g}")
    for note in found.notes:
        terminal.say(note)
    for path in found.files.values():
        terminal.say(f"written: {path}")


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
