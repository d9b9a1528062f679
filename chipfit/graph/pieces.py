# SPDX-License-Identifier: Apache-2.0
"""Parts of a workload that belong to one module."""

from __future__ import annotations

from chipfit.errors import BadInput
from chipfit.graph.splice import Piece
from chipfit.graph.workload import Workload


def piece_at(workload: Workload, place: str) -> Piece:
    """Return the operators of the module called ``place``.

    Raises:
        BadInput: They are not one run of operators that read one tensor and leave one.
    """
    inside = f"{place}."

    def within(name: str) -> bool:
        return f"{name.partition('#')[0]}.".startswith(inside)

    own = [n for n in workload.nodes if within(n.module or n.name)]
    made = {n.output for n in own}
    sources = {i for n in own for i in n.inputs if i not in made}
    others = [n for n in workload.nodes if n.output not in made]
    read = {i for n in others for i in n.inputs} | set(workload.outputs)
    results = [n.output for n in own if n.output in read]
    foreign = [a for n in own for a in n.absorbed if not within(a)]
    if not own or len(sources) != 1 or len(results) != 1 or foreign or results[0] != own[-1].output:
        raise BadInput(f"{place} is no separate part of the graph with one input and one output")
    return Piece(tuple(own), sources.pop(), results[0])
