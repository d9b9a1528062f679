# SPDX-License-Identifier: Apache-2.0
"""What a run remembers: journal, candidates, checkpoints."""

from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.journal import Journal
from chipfit.runs.run import Run, peek

__all__ = ["ORIGINAL", "Candidate", "Journal", "Run", "peek"]
