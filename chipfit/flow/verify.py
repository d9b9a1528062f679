# SPDX-License-Identifier: Apache-2.0
"""``verify``: does an exported file compute what its network computes, and what does it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chipfit.cost.location import default_table_path
from chipfit.cost.model import ERROR
from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, ChipfitError, ParityError, UnsupportedOp
from chipfit.flow.verify_layers import LayerComparison, NodeFinder, compare_layers
from chipfit.flow.verify_reference import Reference, check_parity, open_reference
from chipfit.graph.capture import trace
from chipfit.targets import Target, create
from chipfit.targets.base import NetworkCost, Refusal, RuntimeNode


@dataclass(frozen=True)
class Verification:
    """What was found out about a file.

    Args:
        file: Its path.
        target: Name of the target.
        cost: Compiled or measured from the file; without latency where operators are left to the
            CPU, whose time nobody knows.
        predicted: From the cost table, where the file was compared with a network.
        max_abs_error: Against PyTorch, where there is a network to compare with.
        top1_agreement: Share of inputs with the same class.
        fallbacks: Operators that do not run on the accelerator.
        reference: What the file was compared with, and on which inputs.
        comparison: Predicted against real, layer by layer.
        runtime: What the runtime really executes; empty where it does not tell.
        notes: What could not be found out, and why.
    """

    file: Path
    target: str
    cost: NetworkCost
    predicted: dict[str, float] = field(default_factory=dict)
    max_abs_error: float | None = None
    top1_agreement: float | None = None
    fallbacks: tuple[Refusal, ...] = ()
    reference: str = ""
    comparison: tuple[LayerComparison, ...] = ()
    runtime: tuple[RuntimeNode, ...] = ()
    notes: tuple[str, ...] = ()

    def errors(self) -> dict[str, float]:
        """Return ``predicted / real - 1`` for every key that both know."""
        total = self.cost.total
        return {k: v / total[k] - 1 for k, v in self.predicted.items() if total.get(k)}

    @property
    def conversions(self) -> float:
        """Share of the time that goes into changes of layout and precision."""
        return sum(node.share for node in self.runtime if node.conversion)

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit verify --json`` prints."""
        return {
            "file": str(self.file), "target": self.target, "cost": dict(self.cost.total.values),
            "provenance": self.cost.total.provenance, "spread": dict(self.cost.total.spread),
            "predicted": self.predicted, "prediction_error": self.errors(),
            "max_abs_error": self.max_abs_error, "top1_agreement": self.top1_agreement,
            "fallbacks": [
                {"name": r.name, "kind": r.kind, "reason": r.reason} for r in self.fallbacks
            ],
            "reference": self.reference,
            "layers": [
                {"name": layer.name, "kind": layer.kind, "runs_on": layer.runs_on,
                 "precision": layer.precision, "cost": dict(layer.cost.values)}
                for layer in self.cost.layers
            ],
            "comparison": [item.to_json() for item in self.comparison],
            "runtime": [
                {"name": node.name, "kind": node.kind, "share": node.share, "layer": node.layer,
                 "precision": node.precision, "conversion": node.conversion}
                for node in self.runtime
            ],
            "notes": list(self.notes),
        }  # fmt: skip


def verify(
    file: str | Path,
    target: str | Target,
    against: str | None = None,
    *,
    strict: bool = False,
    table: str | Path | None = None,
) -> Verification:
    """Re-cost a file on a target and compare it with the network it was exported from.

    Args:
        file: A ``.tflite`` or ``.onnx`` file.
        target: A target that runs such files, or its name.
        against: ``RUN:ID``, the member of a run that the file was exported from, or
            ``NET[@WEIGHTS.safetensors]``, a network by name; that one is compared on random inputs.
        strict: Raise where operators would not run on the accelerator.
        table: Path of the cost table; the user's own where ``None``.

    Raises:
        BadInput: The file is missing or is not of the target's format.
        ParityError: The file does not compute what the network computes.
        UnsupportedOp: The target rejects the file; or ``strict``, and part of it would not run on
            the accelerator: the operators are named.
    """
    path = Path(file)
    chosen = create(target) if isinstance(target, str) else target
    kind = path.suffix.lstrip(".")
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    if kind != chosen.file_format:
        raise BadInput(
            f"{chosen.name} runs .{chosen.file_format or '(none)'} files, not {path.name}",
            "choose a target of that format, see chipfit targets",
        )
    fields: dict[str, Any] = {}
    reference = None
    if against is not None:
        reference = open_reference(against, path)
        parity = check_parity(path, reference, chosen.precision)
        fields = {
            "max_abs_error": parity.max_abs_error,
            "top1_agreement": parity.top1_agreement,
            "reference": reference.text,
        }
    cost, fallbacks = chosen.cost_file_parts(path)
    if fallbacks:
        _refuse(chosen.name, path, fallbacks, strict)
    else:
        fields["runtime"] = tuple(chosen.runtime_nodes(path))
    if reference is not None:
        with CostTable(table or default_table_path()) as prices:
            fields |= _predicted(chosen, reference, cost, fallbacks, prices)
    return Verification(path, chosen.name, cost, fallbacks=tuple(fallbacks), **fields)


def _refuse(target: str, path: Path, fallbacks: Sequence[Refusal], strict: bool) -> None:
    if strict:
        places = ", ".join(f"{refusal.name} ({refusal.kind})" for refusal in fallbacks[:8])
        raise UnsupportedOp(
            f"{target} leaves {len(fallbacks)} operator(s) of {path} to the CPU, at unknown cost:"
            f" {places}",
            "replace them, choose another target, or leave out --strict",
        )


def _predicted(
    target: Target, reference: Reference, cost: NetworkCost, fallbacks: Sequence[Refusal],
    table: CostTable,
) -> dict[str, Any]:  # fmt: skip
    """Predict the network's cost, in pieces around operators that the target cannot run."""
    import torch

    example = torch.from_numpy(reference.inputs[:1])
    workload = trace(reference.net, example)
    finder = NodeFinder(workload)
    # What the run predicted for another device says nothing about this one.
    stored = dict(reference.predicted) if reference.target in (target.name, target.spec) else {}
    lost = {finder.find(refusal.name) for refusal in fallbacks}
    kept = [i for i, node in enumerate(workload.nodes) if node.name not in lost]
    part = workload.part(kept) if lost else workload
    try:
        guess = predict(part, target, table)
    except ChipfitError as error:
        note = f"the network's layers could not be predicted: {error.message}"
        return {"predicted": stored, "notes": (note,)}
    comparison = tuple(compare_layers(workload, cost.layers, guess.layers))
    notes: tuple[str, ...] = ()
    if not comparison:
        notes = ("no operator of the file could be found in the network",)
    if target.provenance == "measured" and ERROR not in table.facts(target.fingerprint):
        notes += (
            "the prediction is not calibrated: chipfit profile --predict does that, once per table",
        )
    total = {} if lost else dict(guess.total.values)
    return {"predicted": total | stored, "comparison": comparison, "notes": notes}


__all__ = ["ParityError", "Verification", "verify"]
