# SPDX-License-Identifier: Apache-2.0
"""Types of the tensors in a TFLite file, by the names that compilers print."""

from __future__ import annotations

#: Names of TFLite's tensor types, as ``runs in`` precisions are called elsewhere.
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16",
          9: "int8", 10: "float64", 17: "int4"}  # fmt: skip


class TensorTypes:
    """Precisions of a whole ``.tflite`` file's tensors.

    Args:
        data: The file's content, checked by :func:`chipfit.targets.tflite_file.read_tflite`.
    """

    def __init__(self, data: bytes) -> None:
        from ethosu.vela.tflite.Model import Model

        model = Model.GetRootAsModel(data, 0)
        self._types: dict[str, str] = {}
        for g in range(model.SubgraphsLength()):
            graph = model.Subgraphs(g)
            for i in range(graph.TensorsLength()):
                tensor = graph.Tensors(i)
                name = (tensor.Name() or b"").decode(errors="replace")
                self._types.setdefault(name, _TYPES.get(tensor.Type(), ""))

    def tensor(self, row: str) -> str:
        """Return the tensor that a compiler's row is named after; ``""`` where there is none.

        Compilers add suffixes for the parts that they split an operator into.
        """
        while row not in self._types and "_" in row:
            row = row.rpartition("_")[0]
        return row if row in self._types else ""

    def precision(self, row: str) -> str:
        """Return the type of what a row writes, for instance ``"int8"``; ``""`` where unknown."""
        return self._types.get(self.tensor(row), "")
