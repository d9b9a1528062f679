# SPDX-License-Identifier: Apache-2.0
"""What a network does: tracing to fused operators, channel groups, execution."""

from chipfit.graph.capture import capture, trace
from chipfit.graph.op import Op, make_op
from chipfit.graph.workload import Node, Program, Workload

__all__ = ["Node", "Op", "Program", "Workload", "capture", "make_op", "trace"]
