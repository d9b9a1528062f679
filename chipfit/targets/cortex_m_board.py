# SPDX-License-Identifier: Apache-2.0
"""Fitting the model of a Cortex-M core to measurements of the user's own board.

The file is a CSV with the columns ``network`` (a ``.tflite`` file, relative to the CSV's folder, a
name from ``chipfit nets`` or ``file.py:factory``), ``latency_ms`` and, for networks that are no
files, ``input`` (``1,3,96,96`` in quotes, or ``1x3x96x96``). Three rows or more.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput
from chipfit.targets.cortex_m_model import Work, work_of_file

if TYPE_CHECKING:
    import torch

#: Groups of operators that get a factor of their own, from the coarsest to the finest.
GROUPINGS: tuple[tuple[str, ...], ...] = (
    ("all",), ("depthwise", "all"), ("convolution", "depthwise", "all"),
)  # fmt: skip
#: A group that never makes more than this share of the time cannot be told from the others.
_LEAST_SHARE = 0.05
_LEAST_ROWS = 3


@dataclass(frozen=True)
class BoardFit:
    """Factors on the modelled cycles of groups of operators.

    Args:
        factors: By group; ``"all"`` holds for the operators of no other group.
        error: Largest relative error of a row under the factors of all the *other* rows.
        digest: Of the file.
        rows: Number of measurements.
    """

    factors: Mapping[str, float]
    error: float
    digest: str
    rows: int

    def factor(self, work: Work) -> float:
        """Return the factor on an operator's cycles."""
        return self.factors[_group(work, tuple(self.factors))]

    def __str__(self) -> str:
        factors = ",".join(f"{name}:{value:.3g}" for name, value in sorted(self.factors.items()))
        return f"board={self.digest} rows={self.rows} factors={factors} error={self.error:.1%}"


def fit_board(path: Path, constants: Mapping[str, float], clock_hz: float) -> BoardFit:
    """Fit the factors to the file's measurements.

    As many factors are fitted as predict a left-out row best, so that three measurements of alike
    networks give one factor, and several of unlike networks give up to three.

    Args:
        path: The CSV.
        constants: Cycles by kind of work.
        clock_hz: Of the board.

    Raises:
        BadInput: The file cannot be read, has fewer than three rows, or a row is wrong.
        UnsupportedOp: A network's operators are not modelled.
    """
    names, measured, digest = _read(path)
    works = [_work(name, shape, path) for name, shape in names]
    best: BoardFit | None = None
    for groups in GROUPINGS:
        modelled = np.array([_grouped(work, groups, constants) for work in works])
        modelled *= 1e3 / clock_hz
        factors = _solve(modelled, measured)
        error = _left_out_error(modelled, measured)
        if error is None or not _identifiable(modelled, factors):
            continue
        if best is None or error < best.error:
            best = BoardFit(
                dict(zip(groups, map(float, factors), strict=True)), error, digest, len(measured)
            )
    if best is None:
        raise BadInput(
            f"{path} does not determine a model of the board", "measure more, unlike networks"
        )
    return best


def _group(work: Work, groups: Sequence[str]) -> str:
    own = "all"
    if "depthwise_macs" in work.counts:
        own = "depthwise"
    elif "conv_macs" in work.counts:
        own = "convolution"
    return own if own in groups else "all"


def _grouped(
    works: Sequence[Work], groups: Sequence[str], constants: Mapping[str, float]
) -> list[float]:
    sums = dict.fromkeys(groups, 0.0)
    for work in works:
        sums[_group(work, groups)] += work.cycles(constants)
    return [sums[group] for group in groups]


def _solve(modelled: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-negative factors of least squared relative error."""
    from scipy.optimize import nnls

    factors: NDArray[np.float64] = nnls(modelled / measured[:, None], np.ones(len(measured)))[0]
    return factors


def _left_out_error(modelled: NDArray[np.float64], measured: NDArray[np.float64]) -> float | None:
    """Return the largest error of a left-out row; ``None`` where too few rows remain."""
    rows, groups = modelled.shape
    if rows <= groups:
        return None
    worst = 0.0
    for i in range(rows):
        kept = np.arange(rows) != i
        factors = _solve(modelled[kept], measured[kept])
        worst = max(worst, abs(float(modelled[i] @ factors / measured[i]) - 1))
    return worst


def _identifiable(modelled: NDArray[np.float64], factors: NDArray[np.float64]) -> bool:
    if not factors.all():
        return False
    shares = modelled / modelled.sum(axis=1, keepdims=True)
    return bool((shares.max(axis=0) >= _LEAST_SHARE).all())


def _read(path: Path) -> tuple[list[tuple[str, str]], NDArray[np.float64], str]:
    try:
        data = Path(path).read_bytes()
        records = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot read the measurements {path}: {error}") from error
    hint = "a header network,latency_ms and one row per network that was measured"
    names, measured = [], []
    for number, record in enumerate(records, 2):
        try:
            latency_ms = float(record["latency_ms"])
            name = (record["network"] or "").strip()
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path} has no network and latency_ms in line {number}", hint
            ) from error
        if not name or not math.isfinite(latency_ms) or latency_ms <= 0:
            raise BadInput(f"line {number} of {path} has no name, or no positive latency_ms", hint)
        names.append((name, (record.get("input") or "").strip()))
        measured.append(latency_ms)
    if len(names) < _LEAST_ROWS:
        raise BadInput(f"{path} holds {len(names)} measurements; {_LEAST_ROWS} are the least", hint)
    return names, np.array(measured), hashlib.sha256(data).hexdigest()[:8]


def _work(name: str, shape: str, table: Path) -> list[Work]:
    if name.endswith(".tflite"):
        file = Path(name) if Path(name).is_absolute() else Path(table).parent / name
        try:
            return work_of_file(file.read_bytes(), str(file))
        except OSError as error:
            raise BadInput(f"cannot read {file}, which {table} names: {error}") from error
    import torch

    from chipfit.export.tflite import synthetic_ranges, to_tflite
    from chipfit.graph.capture import capture

    try:
        sizes = tuple(int(part) for part in shape.replace("x", ",").split(",")) if shape else ()
    except ValueError as error:
        raise BadInput(f"cannot read the input {shape!r} in {table}", "1,3,96,96") from error
    net = _network(name, sizes or None)
    sizes = sizes or tuple(getattr(net, "input_shape", ()))
    if not sizes or min(sizes) < 1:
        raise BadInput(f"{table} names {name} without its input", "add a column input: 1x3x96x96")
    program = capture(net, torch.zeros(sizes))
    return work_of_file(to_tflite(program, synthetic_ranges(program.workload)).data, name)


def _network(name: str, shape: tuple[int, ...] | None) -> torch.nn.Module:
    from chipfit import nets
    from chipfit.user_code import load_module

    place, colon, attribute = name.rpartition(":")
    if not colon or not place.endswith(".py"):
        return nets.create(name, input_shape=shape).eval()
    factory = getattr(load_module(place), attribute, None)
    if not callable(factory):
        raise BadInput(f"there is no factory {attribute} in {place}")
    try:
        net: torch.nn.Module = factory().eval()
    except Exception as error:  # the user's code may raise anything
        raise BadInput(f"{name} fails: {type(error).__name__}: {error}") from error
    if not hasattr(net, "input_shape") and hasattr(factory, "input_shape"):
        net.input_shape = factory.input_shape
    return net
