# SPDX-License-Identifier: Apache-2.0
"""Tables that explain the cycles of RAN-e on one Ethos-U configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.output import Report
from benchmarks.ran_e_layers import KINDS, Compiled, waiting

#: Option behind a network's name, and behind its label where it was built with it.
RELU6, HARDSWISH = ":activation=relu6", ":activation=hardswish"
DEAREST = 14

Row = dict[str, Any]


def kind_rows(of: Mapping[str, Compiled], nets: Sequence[str]) -> list[Row]:
    """Return thousands of cycles by kind of layer."""
    rows = [
        {"kcycles": kind, **{n: sum(r.cycles for r in of[n].rows_of(kind)) / 1e3 for n in nets}}
        for kind in KINDS
    ]
    return [*rows, {"kcycles": "all", **{net: of[net].result.cycles / 1e3 for net in nets}}]


def utilisation_rows(of: Mapping[str, Compiled], nets: Sequence[str]) -> list[Row]:
    """Return the share of the MAC units that work while the NPU does, by kind of layer."""
    rows: list[Row] = []
    for kind in (*KINDS, "all"):
        row: Row = {"MACs used %": kind}
        for net in nets:
            one = of[net]
            used = one.utilisation(one.all_rows() if kind == "all" else one.rows_of(kind))
            row[net] = None if used is None else 100 * used
        rows.append(row)
    return [row for row in rows if any(row[net] is not None for net in nets)]


def output_rows(of: Mapping[str, Compiled], nets: Sequence[str]) -> list[Row]:
    """Return the fewest NPU cycles that any layer takes for an output value, by activation."""
    rows = []
    for activation, option in (("ReLU6", RELU6), ("hardswish", "")):
        row: Row = {"NPU cycles per output, at least": activation}
        for kind in ("depthwise", "pointwise"):
            row[kind] = min(
                of[net + option].cycles_per_output(node)
                for net in nets
                for node in of[net].workload.nodes
                if of[net].kinds[node.name] == kind and node.op.activation != "none"
            )
        rows.append(row)
    return rows


def bound_rows(of: Mapping[str, Compiled], nets: Sequence[str]) -> list[Row]:
    """Return the share of the cycles that goes to arithmetic and to waiting for each memory."""
    rows = []
    for net in nets:
        total = of[net].result.cycles
        waits = waiting(of[net].all_rows())
        del waits["on-chip flash"]  # none of the layouts has any
        bound = [row for row in of[net].all_rows() if row.bound_by not in ("NPU", "SRAM")]
        rows.append({
            "network": net, "kcycles": total / 1e3,
            "NPU %": 100 * sum(row.npu_cycles for row in of[net].all_rows()) / total,
            **{f"waits for {m} %": 100 * cycles / total for m, cycles in waits.items()},
            "layers behind DRAM or flash": len(bound),
            "their share of MACs %": 100 * sum(r.macs for r in bound) / of[net].result.macs,
        })  # fmt: skip
    return rows


def cost_of_hardswish(of: Mapping[str, Compiled], nets: Sequence[str]) -> list[Row]:
    """Return the cycles by which hardswish is dearer than ReLU6, by kind of layer."""
    rows = []
    for net in nets:
        both = of[net], of[net + RELU6]
        row: Row = {"network": net, "hardswish - ReLU6, kcycles":
                    (both[0].result.cycles - both[1].result.cycles) / 1e3}  # fmt: skip
        for kind in KINDS:
            with_it, without = (sum(r.cycles for r in one.rows_of(kind)) for one in both)
            row[kind] = (with_it - without) / 1e3
        rows.append(row)
    return rows


def layer_rows(compiled: Compiled, count: int) -> list[Row]:
    """Return the dearest layers."""
    rows: list[Row] = []
    for node in compiled.workload.nodes:
        own = compiled.rows[node.name]
        used = compiled.utilisation(own)
        dearest = max(own, key=lambda row: row.cycles, default=None)
        rows.append({
            "layer": node.name, "kind": compiled.kinds[node.name],
            "output": "x".join(map(str, node.op.output[1:])), "activation": node.op.activation,
            "kcycles": sum(r.cycles for r in own) / 1e3,
            "NPU kcycles": sum(r.npu_cycles for r in own) / 1e3,
            "MACs used %": None if used is None else 100 * used,
            "bound by": dearest.bound_by if dearest else "",
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["kcycles"])[:count]


def explain(
    report: Report, of: Mapping[str, Compiled], title: str, nets: Sequence[str], rane: Sequence[str]
) -> None:
    """Add the tables of one configuration.

    Args:
        report: Where they go.
        of: Compiled networks by label, those of ``rane`` with ReLU6 too.
        title: The configuration.
        nets: What to show.
        rane: Those of ``nets`` whose activations are looked at.
    """
    report.table(f"{title}: cycles by kind of layer", kind_rows(of, nets))
    report.table(f"{title}: use of the MAC units by kind of layer", utilisation_rows(of, nets))
    report.table(f"{title}: what the cycles are spent on", bound_rows(of, nets))
    report.table(
        f"{title}: what hardswish costs, kcycles by kind of layer", cost_of_hardswish(of, rane)
    )
    report.table(f"{title}: how fast activations leave the NPU", output_rows(of, rane))
