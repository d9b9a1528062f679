# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-201: the space of its cells, and the CIFAR-10 accuracy of every one of them.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR
2020, arXiv 2001.00326: a cell has four nodes and one of five operations on each of the six edges
between them, 15 625 cells in all. The accuracies are those of a training of all cells anew by the
authors of AnalogNAS-Bench, which their package ``analog-nasbench`` holds; it is fetched from PyPI,
and none of its code runs. They are not the figures of the paper of 2020.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chipfit.errors import DataUnavailable
from chipfit.packages import WheelFile
from chipfit.space.architecture import Architecture
from chipfit.space.choice import Choice, SearchSpace

#: In the paper's order.
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
#: From node to node, in the paper's order: by the node they end at.
EDGES = ("0-1", "0-2", "1-2", "0-3", "1-3", "2-3")

#: 5.6 MB, in a wheel of 2.9 MB.
TABLE = WheelFile(
    "analog-nasbench", "0.1.3", "analognasbench/data.anb",
    "85f3435b877aa2d36268d55ce07f6ff6d73643d17a840f1941745da5eb80db32",
)  # fmt: skip
#: Operations and edges in the order of the table's keys.
_TABLE_OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
_TABLE_EDGES = ("0-1", "0-2", "0-3", "1-2", "1-3", "2-3")
#: The only names that the table's pickle may refer to.
_PLAIN = ("Architecture", "DriftMeasurement")


@dataclass(frozen=True)
class Accuracies:
    """CIFAR-10 test accuracy of one cell's network, in per cent.

    Args:
        baseline: Trained and run in floating point.
        ptq: Quantised after training.
        qat: Trained with quantisation.
        noisy: The baseline's weights on noisy analogue hardware.
        analog: Trained for noisy analogue hardware.
    """

    baseline: float
    ptq: float
    qat: float
    noisy: float
    analog: float


def cell_space() -> SearchSpace:
    """Return the space: one choice per edge, ``"0-1"`` to ``"2-3"``, of :data:`OPERATIONS`.

    >>> cell_space().size
    15625
    """
    return SearchSpace(tuple(Choice(edge, OPERATIONS) for edge in EDGES))


def cell_text(cell: Mapping[str, Any]) -> str:
    """Return the paper's notation of a cell, which ``nas_bench_201:cell=TEXT`` takes.

    Args:
        cell: An operation per edge.

    Raises:
        BadInput: It is no cell of the space.

    >>> cell_text(cell_space().smallest())
    '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """
    cell = cell_space().check(cell)
    groups = []
    for node in "123":
        edges = [edge for edge in EDGES if edge.endswith(node)]
        groups.append("|" + "|".join(f"{cell[edge]}~{edge[0]}" for edge in edges) + "|")
    return "+".join(groups)


@functools.cache
def accuracies() -> Mapping[Architecture, Accuracies]:
    """Return the accuracies of all 15 625 cells, fetched and cached where necessary.

    Raises:
        DataUnavailable: The table is neither cached nor reachable, or is not as it should be.
    """
    return MappingProxyType(read_table(TABLE.fetch()))


def read_table(path: Path) -> dict[Architecture, Accuracies]:
    """Read a table of AnalogNAS-Bench.

    The file is a pickle, so everything but its two classes of plain records is refused.

    Raises:
        DataUnavailable: The file cannot be read, refers to anything else, or is incomplete.
    """
    try:
        with path.open("rb") as file:
            found = _Records(file).load()
        return {
            Architecture({edge: _operation(key, edge) for edge in EDGES}): _accuracies(record)
            for key, record in found.items()
        }
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError,
            ValueError) as error:  # fmt: skip
        raise DataUnavailable(
            f"{path} is no table of accuracies: {error}", "fetch again"
        ) from error


def _operation(key: tuple[int, ...], edge: str) -> str:
    return _TABLE_OPERATIONS[key[_TABLE_EDGES.index(edge)]]


def _accuracies(record: Any) -> Accuracies:
    names = ("baseline", "ptq", "qat", "noisy", "analog")
    return Accuracies(*(float(getattr(record, f"{name}_accuracy")) for name in names))


class _Record:
    """Fields of a pickled object, whatever its class was."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Records(pickle.Unpickler):
    """Reads plain records and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "analognasbench.data" and name in _PLAIN:
            return _Record
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")
