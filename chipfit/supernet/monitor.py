# SPDX-License-Identifier: Apache-2.0
"""Figures by which a search is watched: entropy, share of skips, and the line of progress.

DARTS and its relatives tend to end in networks of skips (Zela et al., "Understanding and
Robustifying Differentiable Architecture Search", ICLR 2020, arXiv 1909.09656; Chu et al., "Fair
DARTS", ECCV 2020, arXiv 1911.12126). The rule by which :func:`collapsed` warns of it is our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chipfit.errors import BadInput

#: Names of the operations that compute nothing.
SKIPS = ("skip", "skip_connect", "none")
#: Share of skips above which a search may be collapsing.
SKIP_WARNING = 0.5
#: Fewest recorded shares by which a search is judged, and the least rise since the first.
_JUDGED, _RISE = 4, 0.1


def mean_entropy(probabilities: Mapping[str, Sequence[float]]) -> float:
    """Return how undecided a search is: 1 before it has learnt anything, 0 when all is decided.

    The entropy of each choice is divided by the logarithm of its number of operations, pruned
    ones included, and averaged over the choices that have at least two. A gate that is open with
    probability ``p`` is the choice ``(1 - p, p)``.

    Args:
        probabilities: By choice, the probability of each operation; they sum to 1, and a pruned
            operation has 0.

    Raises:
        BadInput: Probabilities are negative, or do not sum to 1.
    """
    parts = []
    for choice, values in probabilities.items():
        row = _checked(choice, values)
        if len(row) > 1:
            parts.append(-sum(p * math.log(p) for p in row if p > 0) / math.log(len(row)))
    return min(1.0, max(0.0, math.fsum(parts) / len(parts))) if parts else 0.0


def skip_share(
    probabilities: Mapping[str, Sequence[float]], names: Mapping[str, Sequence[str]]
) -> float | None:
    """Return the mean probability of computing nothing, over the choices that offer it.

    Args:
        probabilities: By choice, the probability of each operation.
        names: By choice, the names of its operations in the same order; :data:`SKIPS` are those
            that compute nothing.

    Returns:
        Between 0 and 1, or ``None`` where no choice offers a skip.

    Raises:
        BadInput: A choice has no names or more or fewer than probabilities, or the probabilities
            are negative or do not sum to 1.
    """
    shares = []
    for choice, values in probabilities.items():
        row, own = _checked(choice, values), names.get(choice, ())
        if len(own) != len(row):
            raise BadInput(
                f"choice {choice} has {len(row)} probabilities and {len(own)} operations",
                "give both of the same supernet",
            )
        if any(name in SKIPS for name in own):
            shares.append(math.fsum(p for p, name in zip(row, own, strict=True) if name in SKIPS))
    return min(1.0, math.fsum(shares) / len(shares)) if shares else None


def collapsed(history: Sequence[float]) -> bool:
    """Return whether skips are taking over.

    Their share is above 0.5, more than 0.1 above the first recorded one, and does not fall: within
    the last quarter of what was recorded the later half is on average at least as high as the
    earlier half. Under four records nothing is said.

    Args:
        history: :func:`skip_share` as recorded so far, the latest last.
    """
    if len(history) < _JUDGED or history[-1] <= max(SKIP_WARNING, history[0] + _RISE):
        return False
    last = [float(share) for share in history[-max(2, len(history) // 4) :]]
    half = len(last) // 2
    early, late = last[:half], last[-half:]
    return math.fsum(late) / half >= math.fsum(early) / half


def search_line(event: Mapping[str, Any]) -> str:
    """Return a ``search`` event of the journal as one line of progress.

    Only what the event holds is told.

    >>> search_line({"step": 120, "steps": 600, "val_accuracy": 0.41, "entropy": 0.83,
    ...              "expected": {"latency_ms": 0.71}, "budget": {"latency_ms": 0.6}})
    'step 120/600: accuracy 41.0%, expected latency_ms 0.71 (budget 0.6, +18.3%), entropy 0.83'
    """
    parts = []
    for key, text in (("loss", "loss {:.3f}"), ("val_loss", "validation loss {:.3f}")):
        parts += _part(event, key, text)
    for key in (k for k in event if k.startswith("val_") and k != "val_loss"):
        name = key.removeprefix("val_").replace("_", " ")
        parts += _part(event, key, f"{name} {{:{'.1%' if key.endswith('accuracy') else '.4g'}}}")
    budget = event.get("budget") or {}
    for key, value in (event.get("expected") or {}).items():
        bound = _number(budget.get(key))
        against = ""
        if bound is not None:
            against = f" (budget {bound:.4g}" + (f", {value / bound - 1:+.1%})" if bound else ")")
        parts.append(f"expected {key} {value:.4g}{against}")
    for key, text in (("entropy", "entropy {:.2f}"), ("temperature", "temperature {:.3g}"),
                      ("skip_share", "skips {:.2f}")):  # fmt: skip
        parts += _part(event, key, text)
    if event.get("collapsing"):
        parts.append("skips are taking over")
    steps = f"/{event['steps']}" if event.get("steps") is not None else ""
    return f"step {event.get('step', '?')}{steps}" + (f": {', '.join(parts)}" if parts else "")


def _part(event: Mapping[str, Any], key: str, text: str) -> list[str]:
    value = _number(event.get(key))
    return [] if value is None else [text.format(value)]


def _number(value: Any) -> float | None:
    return None if value is None or isinstance(value, bool | str) else float(value)


def _checked(choice: str, values: Sequence[float]) -> list[float]:
    row = [float(value) for value in values]
    total = math.fsum(row)
    if not all(0.0 <= p <= 1.0 + 1e-4 for p in row) or not math.isclose(total, 1.0, abs_tol=1e-3):
        raise BadInput(
            f"the probabilities of choice {choice} sum to {total:.6g}",
            "they are none below 0, and sum to 1; of an independent gate give (1 - p, p)",
        )
    return row
