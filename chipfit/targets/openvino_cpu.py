# SPDX-License-Identifier: Apache-2.0
"""``openvino-cpu``: latency measured on this machine, float32 or int8."""

from __future__ import annotations

from chipfit.targets.base import TARGETS, RuntimeNode
from chipfit.targets.measured import Subject
from chipfit.targets.onnx_target import OnnxTarget
from chipfit.targets.openvino_session import open_run, openvino_version, profile
from chipfit.targets.ort_network import layer_of
from chipfit.targets.timing import Run


class OpenVinoCpu(OnnxTarget):
    """OpenVINO's CPU plugin; see :class:`~chipfit.targets.onnx_target.OnnxTarget`.

    In float32 nothing is computed in less, bfloat16 included. In int8 it runs the QDQ files that
    ONNX Runtime runs. Compiling a model for it is slow beside running one, and its instances
    differ by 1 to 3 %: the protocol's fresh sessions matter here.
    """

    name = "openvino-cpu"
    #: Its kernels work on vectors of 8 or 16 channels; other counts cost little more.
    alignment = 8

    @staticmethod
    def runtime() -> str:
        """Return the runtime with its version."""
        return f"openvino={openvino_version()}"

    def _open(self, subject: Subject) -> Run:
        return open_run(subject.content, self.threads, subject.place)

    def _nodes(self, subject: Subject) -> list[RuntimeNode]:
        found = []
        last = ""
        for node in profile(subject.content, self.threads, place=subject.place):
            layers = [layer_of(source, subject.workload) for source in node.sources]
            # An operator named by an output ends on a quantisation, which is none of its work.
            layer = next(filter(None, layers), "")
            last = layer or last
            if subject.workload is not None and not node.conversion:
                layer = last
            found.append(
                RuntimeNode(
                    node.name, node.kind, node.share, layer, node.precision, node.conversion
                )
            )
        return found


@TARGETS.register(
    "openvino-cpu", summary="this machine's CPU through OpenVINO, float32 or int8, measured"
)
def openvino_cpu(
    threads: int | str = 1, precision: str = "float32", variant: str = "", reduce_range: str = ""
) -> OpenVinoCpu:
    """Return the target; options are text where they stand in a name."""
    return OpenVinoCpu(threads, None, precision, variant, reduce_range)
