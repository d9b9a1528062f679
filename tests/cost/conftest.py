# SPDX-License-Identifier: Apache-2.0
import pytest

from chipfit.graph import Node, Workload, make_op


def conv(name, source, c_in, c_out, size, kernel=1, groups=1, activation="relu"):
    p = kernel // 2
    op = make_op(
        "conv2d",
        [(1, c_in, size, size)],
        (1, c_out, size, size),
        activation=activation,
        kernel=(kernel, kernel),
        stride=(1, 1),
        dilation=(1, 1),
        groups=groups,
        bias=True,
        padding=(p, p, p, p),
    )
    return Node(name, op, (source,), f"{name}:out", module=name)


def build_bottlenecks(widths, size=8, channels=8):
    """Residual inverted bottlenecks on ``channels``; one hidden width each."""
    nodes, source = [], "x"
    for i, width in enumerate(widths):
        expand = conv(f"b{i}.expand", source, channels, width, size)
        depth = conv(f"b{i}.depth", expand.output, width, width, size, 3, width)
        project = conv(f"b{i}.project", depth.output, width, channels, size, activation="none")
        shape = (1, channels, size, size)
        add = Node(
            f"b{i}.add", make_op("add", [shape, shape], shape), (source, project.output), f"s{i}"
        )
        nodes += [expand, depth, project, add]
        source = add.output
    shapes = {"x": (1, channels, size, size)} | {n.output: n.op.output for n in nodes}
    return Workload(tuple(nodes), ("x",), (source,), shapes)


@pytest.fixture
def bottlenecks():
    return build_bottlenecks
