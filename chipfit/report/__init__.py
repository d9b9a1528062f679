# SPDX-License-Identifier: Apache-2.0
"""Reports: what a run directory holds, as a page, a picture and tables."""

from chipfit.report.data import RunData
from chipfit.report.read import read_run
from chipfit.report.table import family_table, rich_table
from chipfit.report.write import write_report

__all__ = ["RunData", "family_table", "read_run", "rich_table", "write_report"]
