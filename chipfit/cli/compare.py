# SPDX-License-Identifier: Apache-2.0
"""The ``compare`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import input_option, json_option, target_option

if TYPE_CHECKING:
    from chipfit.flow.network import InputShape


@click.command("compare")
@click.argument("nets", nargs=-1, required=True, metavar="NET NET...")
@target_option
@input_option
@json_option
def compare_command(
    nets: tuple[str, ...], target: str, shape: InputShape | None, as_json: bool
) -> None:
    """Which NET is faster on a target, each against the first, and is it certain?"""
    from chipfit.flow.compare import compare

    terminal = Terminal(as_json)
    found = compare(nets, target, shape)
    if as_json:
        terminal.document(found.to_json())
        return
    first = found.standings[0].comparison
    measured = first.noise > 0
    rows = []
    for number, standing in enumerate(found.standings):
        c = standing.comparison
        interval = f"{c.low:.3f} .. {c.high:.3f}" if measured else "exact"
        rows.append(
            {"network": standing.network, "MACs": standing.macs,
             "time / first": round(c.ratio, 4), "95 % interval": interval,
             "verdict": c.verdict if number else "the first"}
        )  # fmt: skip
    columns = ["network", "MACs", "time / first", "95 % interval", "verdict"]
    terminal.table(rows, columns, title=f"{found.target} ({found.provenance})")
    if measured:
        terminal.out.print(
            f"The first network against itself: up to {100 * first.noise:.1f} % apart. "
            "What is closer than that, or than 2 %, is indistinguishable here."
        )
