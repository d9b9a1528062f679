# SPDX-License-Identifier: Apache-2.0
"""``onnxruntime-cpu``: latency measured on this machine, float32 or int8."""

from __future__ import annotations

from chipfit.graph.workload import Workload
from chipfit.targets.base import TARGETS, RuntimeNode
from chipfit.targets.measured import Subject
from chipfit.targets.onnx_target import OnnxTarget
from chipfit.targets.ort_network import layer_of
from chipfit.targets.ort_session import onnxruntime_version, open_run, profile
from chipfit.targets.timing import Run


class OnnxRuntimeCpu(OnnxTarget):
    """ONNX Runtime's CPU provider; see :class:`~chipfit.targets.onnx_target.OnnxTarget`."""

    name = "onnxruntime-cpu"
    #: The runtime's convolutions work on blocks of 8 channels on AVX2 and 16 on AVX-512; a
    #: depthwise convolution with C % 4 != 0 falls off them and takes 4 to 6 times as long.
    alignment = 8

    @staticmethod
    def runtime() -> str:
        """Return the runtime with its version."""
        return f"onnxruntime={onnxruntime_version()}"

    def _open(self, subject: Subject) -> Run:
        return open_run(subject.content, self.threads, subject.place)

    def _nodes(self, subject: Subject) -> list[RuntimeNode]:
        workload = subject.workload
        found = []
        last = ""
        for node in profile(subject.content, self.threads, place=subject.place):
            layer = layer_of(node.name, workload)
            inserted = node.kind == "Transpose" and not _permutes(layer, node.name, workload)
            conversion = node.conversion or inserted
            # Operators that stand for another one (HardSwish) have names of the runtime's own.
            last = layer or last
            layer = last if workload is not None and not conversion else layer
            found.append(
                RuntimeNode(node.name, node.kind, node.share, layer, node.precision, conversion)
            )
        return found


def _permutes(layer: str, name: str, workload: Workload | None) -> bool:
    """Whether a ``Transpose`` is the network's own, not one that the runtime inserted."""
    if workload is None:
        return name.startswith("/")
    return bool(layer) and workload.by_name[layer].op.kind in ("permute", "matmul")


@TARGETS.register(
    "onnxruntime-cpu", summary="this machine's CPU through ONNX Runtime, float32 or int8, measured"
)
def onnxruntime_cpu(
    threads: int | str = 1, precision: str = "float32", variant: str = "", reduce_range: str = ""
) -> OnnxRuntimeCpu:
    """Return the target; options are text where they stand in a name."""
    return OnnxRuntimeCpu(threads, None, precision, variant, reduce_range)
