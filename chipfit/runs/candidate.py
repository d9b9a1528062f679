# SPDX-License-Identifier: Apache-2.0
"""``Candidate``: a network as edits of the original and weights, with its metrics and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipfit.errors import StorageError
from chipfit.rewrite.replay import Rewrite, replay

if TYPE_CHECKING:
    from torch import nn

#: The candidate that stands for the network the user came with.
ORIGINAL = "original"
#: Fields that hold JSON objects.
_MAPPINGS = (
    "architecture", "metrics", "cost", "spread", "predicted", "cpu", "files", "verify",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """One member of the family.

    Args:
        id: Unique in its run; ``"original"`` is the network that came in.
        edits: What was done to the original, replayable.
        weights: Path of the safetensors file, relative to the run directory.
        architecture: Option by choice (width by channel group).
        step: Position in the search.
        parent: Id of the candidate it was made from.
        metrics: Accuracies by name (higher is better): ``val_accuracy``, ``test_accuracy``,
            ``int8_test_accuracy``.
        cost: Figures of the exported file by key, with ``provenance`` and ``spread``.
        predicted: Figures from the cost table.
        cpu: ``latency_ms`` and ``spread_ms`` on this machine through ONNX Runtime.
        files: Exported files by format, relative to the run directory.
        verify: Parity of each file with PyTorch, by format.
        layers: Cost of each layer of the exported file.
        changes: What each step changed and what it bought.
        fresh: Its weights are freshly drawn: it is trained from the start, not fine-tuned.
    """

    id: str
    edits: tuple[Rewrite, ...] = ()
    weights: str = ""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    parent: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    provenance: str = ""
    spread: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)
    cpu: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    verify: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[Mapping[str, Any]] = ()
    changes: Sequence[Mapping[str, Any]] = ()
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; edits stand in a file of their own."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "edits"}
        return {**data, "layers": list(self.layers), "changes": list(self.changes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], edits: Sequence[Rewrite]) -> Candidate:
        """Restore a candidate from :meth:`to_json` and its edits.

        Raises:
            TypeError: The id is missing.
            ValueError: A field is of the wrong kind.
        """
        known = {f.name for f in fields(cls)} - {"edits"}
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known
        }
        found = cls(edits=tuple(edits), **values)
        if not isinstance(found.id, str) or not isinstance(found.step, int):
            raise ValueError("id must be text and step a whole number")
        for name in _MAPPINGS:
            if not isinstance(getattr(found, name), Mapping):
                raise ValueError(f"{name} must be a JSON object")
        return found

    def with_(self, **changes: Any) -> Candidate:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def build(self, net: nn.Module, folder: Path) -> nn.Module:
        """Return this candidate as a module: ``net`` edited, with the stored weights.

        Args:
            net: A network of the user's own class as it was before any edit; it is not changed.
            folder: The run directory.

        Raises:
            StorageError: The weights are missing, damaged or of another network.
        """
        from chipfit.files import read_state

        built = replay(net, self.edits)
        try:
            built.load_state_dict(read_state(folder / self.weights))
        except RuntimeError as error:
            raise StorageError(
                f"the weights of {self.id} do not fit: {str(error).splitlines()[0]}",
                "use the network and arguments the run was started with",
            ) from error
        return built
