# SPDX-License-Identifier: Apache-2.0
import dataclasses

from chipfit.graph import Workload
from chipfit.targets.windows import (
    SPAN,
    SPAN_MARGIN,
    block_units,
    narrow_places,
    neighbour_units,
    single_units,
)


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
    units = neighbour_units(bottlenecks([16, 24, 16]), (1, 1))
    add = units[7]  # of the second block: reads the first block's sum, three nodes back
    assert names(add) == [
        "b0.add", "b1.expand", "b1.project", "b1.add", "b2.expand", "b2.project", "b2.add",
    ]  # fmt: skip
    assert add.focus == (3,)
    assert add.workload.outputs == ("b1.expand:out", "b2.expand:out", "s2")


def test_who_else_reads_the_input_is_there(bottlenecks):
    units = neighbour_units(bottlenecks([16, 24, 16]), (1, 1))
    assert "b1.add" in names(units[4])  # the block's expansion and its shortcut read one tensor
    assert names(units[5]) == ["b1.expand", "b1.depth", "b1.project"]


def test_the_other_inputs_of_readers_are_made_inside(bottlenecks):
    units = neighbour_units(bottlenecks([16, 24, 16]), (1, 1))
    assert names(units[6]) == ["b0.add", "b1.depth", "b1.project", "b1.add"]
    assert units[6].workload.inputs == ("x", "b0.project:out", "b1.expand:out")


def test_chained_operators_are_no_step(bottlenecks):
    plain = neighbour_units(bottlenecks([16, 24, 16]), (1, 1))
    chained = neighbour_units(bottlenecks([16, 24, 16]), (1, 1), chained=True)
    assert set(names(chained[6])) - set(names(plain[6])) == {"b2.expand", "b2.project", "b2.add"}
    assert names(chained[5]) == names(plain[5])  # a convolution reads it, no sum


def test_crowded_operators_hold_what_runs_while_their_tensors_live(bottlenecks):
    workload = bottlenecks([16, 64, 16])
    # Alive at the second block's depthwise convolution: its input and output, and the shortcut.
    peak = (64 + 64 + 8) * 64
    free = neighbour_units(workload, (1, 1), peak)
    assert [u.key for u in free] == [u.key for u in neighbour_units(workload, (1, 1))]
    crowded = neighbour_units(workload, (1, 1), peak - 1)
    changed = [i for i, (a, b) in enumerate(zip(free, crowded)) if a.key != b.key]
    # What makes or reads a tensor that is alive then; the sum before the block makes the shortcut.
    names_changed = [workload.nodes[i].name for i in changed]
    assert names_changed == ["b0.add", "b1.expand", "b1.depth", "b1.project", "b1.add"]
    assert names(crowded[3]) == [node.name for node in workload.nodes[:9]]


def test_long_lives_are_cut(bottlenecks):
    workload = bottlenecks([16] * 12)
    first, *rest = workload.nodes
    late = dataclasses.replace(rest[-1], inputs=(first.output, rest[-1].inputs[1]))
    wide = dataclasses.replace(late, op=dataclasses.replace(late.op, inputs=((1, 16, 8, 8),) * 2))
    long = dataclasses.replace(workload, nodes=(first, *rest[:-1], wide))
    sizes = [len(unit.indices) for unit in neighbour_units(long, (1, 1), 0)]
    assert max(sizes) <= 2 * SPAN + 1 + sum(SPAN_MARGIN) + 8 < len(workload)


def test_every_node_is_in_focus_once(bottlenecks):
    workload = bottlenecks([16, 24])
    for cut in (
        neighbour_units(workload, (1, 1)),
        neighbour_units(workload, (2, 2)),
        single_units(workload),
        block_units(workload, 3),
    ):
        focused = [unit.workload.nodes[i].name for unit in cut for i in unit.focus]
        assert focused == [node.name for node in workload.nodes]


def test_keys_are_structure_not_names(bottlenecks):
    one = bottlenecks([16, 24, 16])
    keys = [unit.key for unit in neighbour_units(one, (1, 1))]
    assert keys == [unit.key for unit in neighbour_units(renamed(one, "other."), (1, 1))]
    wider = [unit.key for unit in neighbour_units(bottlenecks([16, 32, 16]), (1, 1))]
    changed = [i for i, (a, b) in enumerate(zip(keys, wider)) if a != b]
    assert changed == [3, 4, 5, 6, 7]  # the block and the sum before it, which feeds it


def test_keys_tell_focus_and_wiring_apart(bottlenecks):
    keys = [unit.key for unit in neighbour_units(bottlenecks([16]), (2, 2))]
    assert len(set(keys)) == 4
    workload = bottlenecks([16, 16])
    twice = dataclasses.replace(workload.nodes[-1], inputs=(workload.nodes[-1].inputs[1],) * 2)
    other = dataclasses.replace(workload, nodes=(*workload.nodes[:-1], twice))
    assert neighbour_units(workload, (1, 1))[-1].key != neighbour_units(other, (1, 1))[-1].key


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
