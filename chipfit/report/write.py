# SPDX-License-Identifier: Apache-2.0
"""Write the report of a run next to its data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from chipfit.files import write_bytes
from chipfit.report.html import render
from chipfit.report.read import read_run


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` and, where matplotlib is installed, ``front.png`` into a run.

    Either file is replaced as a whole or not at all.

    Args:
        run_dir: A run directory, finished or not.

    Returns:
        The path of ``report.html``.

    Raises:
        BadInput: It is not a run directory, or a file in it does not hold what it should.
        StorageError: A file cannot be read or written.
    """
    run = read_run(run_dir)
    page = run.directory / "report.html"
    write_bytes(page, render(run).encode("utf-8"))
    if importlib.util.find_spec("matplotlib") is not None:
        from chipfit.report.png import front_png

        picture = front_png(run)
        if picture is not None:
            write_bytes(run.directory / "front.png", picture)
    return page
