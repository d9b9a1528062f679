# SPDX-License-Identifier: Apache-2.0
"""How well one list of figures orders another: Spearman's rho and Kendall's tau-b."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np


def spearman(guesses: Sequence[float], truth: Sequence[float]) -> float | None:
    """Return the correlation of ranks, ties sharing their mean rank; ``None`` below 3 values."""
    if len(truth) < 3 or len(set(guesses)) < 2 or len(set(truth)) < 2:
        return None
    return statistics.correlation(_ranks(guesses), _ranks(truth))


def kendall(guesses: Sequence[float], truth: Sequence[float]) -> float | None:
    """Return tau-b: (concordant - discordant) pairs, corrected for ties; ``None`` below 3."""
    if len(truth) < 3 or len(set(guesses)) < 2 or len(set(truth)) < 2:
        return None
    above = np.triu_indices(len(truth), 1)
    a = np.sign(np.subtract.outer(np.asarray(guesses), np.asarray(guesses)))[above]
    b = np.sign(np.subtract.outer(np.asarray(truth), np.asarray(truth)))[above]
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [(order.index(v) + len(order) - 1 - order[::-1].index(v)) / 2 for v in values]
