# SPDX-License-Identifier: Apache-2.0
import dataclasses

from chipfit.graph import Workload
from chipfit.targets.windows import block_units, narrow_places, neighbour_units, single_units


def names(unit):
    return [node.name for node in unit.workload.nodes]


def renamed(workload, prefix):
    nodes = tuple(
        dataclasses.replace(
            node,
            name=prefix + node.name,
            inputs=tuple(prefix + name for name in node.inputs),
            output=prefix + node.output,
        )
        for node in workload.nodes
    )
    return Workload(
        nodes,
        tuple(prefix + name for name in workload.inputs),
        tuple(prefix + name for name in workload.outputs),
        {prefix + name: shape for name, shape in workload.shapes.items()},
    )


def test_neighbours_follow_the_graph_not_the_order(bottlenecks):
    units = neighbour_units(bottlenecks([16, 24, 16]), lambda op: (1, 1))
    add = units[7]  # of the second block: reads the first block's sum, three nodes back
    assert names(add) == ["b0.add", "b1.project", "b1.add", "b2.expand", "b2.add"]
    assert add.focus == (2,)
    assert add.workload.outputs == ("b2.expand:out", "s2")
    assert add.workload.inputs == ("x", "b0.project:out", "b1.depth:out", "b2.project:out")


def test_every_node_is_in_focus_once(bottlenecks):
    workload = bottlenecks([16, 24])
    for cut in (
        neighbour_units(workload, lambda op: (1, 1)),
        neighbour_units(workload, lambda op: (2, 2)),
        single_units(workload),
        block_units(workload, 3),
    ):
        focused = [unit.workload.nodes[i].name for unit in cut for i in unit.focus]
        assert focused == [node.name for node in workload.nodes]


def test_keys_are_structure_not_names(bottlenecks):
    one = bottlenecks([16, 24, 16])
    keys = [unit.key for unit in neighbour_units(one, lambda op: (1, 1))]
    assert keys == [unit.key for unit in neighbour_units(renamed(one, "other."), lambda op: (1, 1))]
    wider = [unit.key for unit in neighbour_units(bottlenecks([16, 32, 16]), lambda op: (1, 1))]
    changed = [i for i, (a, b) in enumerate(zip(keys, wider)) if a != b]
    assert changed == [3, 4, 5, 6, 7]  # the block and the sum before it, which feeds it


def test_keys_tell_focus_and_wiring_apart(bottlenecks):
    keys = [unit.key for unit in neighbour_units(bottlenecks([16]), lambda op: (2, 2))]
    assert len(set(keys)) == 4
    workload = bottlenecks([16, 16])
    twice = dataclasses.replace(workload.nodes[-1], inputs=(workload.nodes[-1].inputs[1],) * 2)
    other = dataclasses.replace(workload, nodes=(*workload.nodes[:-1], twice))
    assert (
        neighbour_units(workload, lambda op: (1, 1))[-1].key
        != neighbour_units(other, lambda op: (1, 1))[-1].key
    )


def test_equal_blocks_share_keys(bottlenecks):
    units = block_units(bottlenecks([16, 24, 16]), 3)
    assert [len(unit.focus) for unit in units] == [4, 4, 4]
    assert units[0].key == units[2].key != units[1].key


def test_narrow_places_keep_residuals_whole(bottlenecks):
    assert narrow_places(bottlenecks([16, 24, 16])) == [4, 8]


def test_a_short_rest_joins_the_last_block(bottlenecks):
    workload = bottlenecks([16, 24])
    assert [len(unit.focus) for unit in block_units(workload, 5)] == [8]


def test_a_chain_is_cut_everywhere(bottlenecks):
    nodes = bottlenecks([16]).nodes[:3]
    shapes = {"x": (1, 8, 8, 8)} | {n.output: n.op.output for n in nodes}
    chain = Workload(nodes, ("x",), (nodes[-1].output,), shapes)
    assert narrow_places(chain) == [1, 2]
    assert [len(unit.focus) for unit in block_units(chain, 1)] == [1, 1, 1]
    assert [len(unit.focus) for unit in block_units(chain, 2)] == [3]
