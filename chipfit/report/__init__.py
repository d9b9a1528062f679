# SPDX-License-Identifier: Apache-2.0
"""Reports: what a run directory holds, as a page, a picture and tables."""

from chipfit.report.data import RunData
from chipfit.report.read import read_run
from chipfit.report.search_facts import search_facts, search_table
from chipfit.report.table import family_table, rich_table
from chipfit.report.tensorboard import follow_tensorboard, write_tensorboard
from chipfit.report.write import write_report

__all__ = [
    "RunData",
    "family_table",
    "follow_tensorboard",
    "read_run",
    "rich_table",
    "search_facts",
    "search_table",
    "write_report",
    "write_tensorboard",
]
