# SPDX-License-Identifier: Apache-2.0
"""Commands that take something from a run: ``report`` and ``export``."""

from __future__ import annotations

from pathlib import Path

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import json_option


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def report_command(run: Path, as_json: bool) -> None:
    """Write RUN/report.html again, and print the family."""
    from chipfit.flow.result import open_run
    from chipfit.report.table import family_table
    from chipfit.report.write import write_report

    terminal = Terminal(as_json)
    result = open_run(run)
    path = write_report(run)
    if as_json:
        terminal.document({**result.to_json(), "report": str(path)})
        return
    terminal.out.print(family_table(run, format="rich"), soft_wrap=True)
    terminal.out.print(f"report: {path}")


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
