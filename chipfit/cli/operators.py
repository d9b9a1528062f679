# SPDX-License-Identifier: Apache-2.0
"""``chipfit operators``: the form for measuring a device of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import input_option, json_option

if TYPE_CHECKING:
    from chipfit.flow.network import InputShape


@click.command("operators")
@click.argument("nets", nargs=-1, required=True, metavar="NET...")
@input_option
@click.option("-o", "output", type=click.Path(path_type=Path), help="Write a CSV to fill in.")
@click.option("--scaled", is_flag=True, help="Also at 1/4, 1/2 and 3/4 of the channels.")
@json_option
def operators_command(
    nets: tuple[str, ...], shape: InputShape | None, output: Path | None, scaled: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """List the distinct operators of networks, to measure them on a device.

    With latency_ms filled in, the CSV is a target: measurements:file=CSV,name=MYBOARD.
    """
    from chipfit.flow.operators import operators

    terminal = Terminal(as_json)
    rows = operators(nets, shape, output, scaled)
    if as_json:
        terminal.document({"operators": rows, "file": None if output is None else str(output)})
        return
    if output is None:
        terminal.table(rows, list(rows[0]) if rows else ["kind"])
    else:
        terminal.out.print(
            f"{len(rows)} operators in {output}: fill in latency_ms, then"
            f" --target measurements:file={output},name=MYBOARD",
            soft_wrap=True,
        )
