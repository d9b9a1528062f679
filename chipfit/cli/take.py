# SPDX-License-Identifier: Apache-2.0
"""Commands that take something from a run: ``report`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import json_option
from chipfit.errors import BadInput


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--tensorboard", "events", metavar="DIR", type=click.Path(path_type=Path),
              help="Also write the search as TensorBoard event files into DIR.")  # fmt: skip
@click.option("--follow", is_flag=True, help="With --tensorboard: until the run has finished.")
@json_option
def report_command(run: Path, events: Path | None, follow: bool, as_json: bool) -> None:
    """Write RUN/report.html again, and print the family."""
    from chipfit.flow.result import open_run
    from chipfit.report import family_table, read_run, search_facts, write_report
    from chipfit.report.search_facts import search_lines
    from chipfit.report.tensorboard import follow_tensorboard, write_tensorboard

    terminal = Terminal(as_json)
    if follow and events is None:
        raise BadInput("--follow needs --tensorboard", "say where: --tensorboard DIR")
    if events is not None:
        (follow_tensorboard if follow else write_tensorboard)(run, events)
    result = open_run(run)
    path = write_report(run)
    data = read_run(run)
    if as_json:
        more: dict[str, Any] = {"searches": search_facts(data)} if data.journal.searches else {}
        more |= {"tensorboard": str(events)} if events is not None else {}
        terminal.document({**result.to_json(), "report": str(path), **more})
        return
    terminal.out.print(family_table(run, format="rich"), soft_wrap=True)
    for line in search_lines(data):
        terminal.say(line)
    terminal.out.print(f"report: {path}")
    if events is not None:
        terminal.say(f"event files: tensorboard --logdir {events}")


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--point", default="best", show_default=True, help="A member's id, best or knee.")
@click.option("--format", "kind", type=click.Choice(["tflite", "onnx"]), required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder.")
@json_option
def export_command(run: Path, point: str, kind: str, output: Path, as_json: bool) -> None:
    """Take the exported file of one member out of RUN."""
    from chipfit.flow.result import open_run

    terminal = Terminal(as_json)
    member = open_run(run).member(point)
    path = member.export(output / f"{member.id}.{kind}")
    if as_json:
        terminal.document(
            {"file": str(path), "id": member.id, "format": kind, "bytes": path.stat().st_size,
             "metrics": dict(member.metrics), "cost": dict(member.candidate.cost)}
        )  # fmt: skip
        return
    terminal.out.print(f"{member.id} -> {path} ({path.stat().st_size:,} bytes)")
