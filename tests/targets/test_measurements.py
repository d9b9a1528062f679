# SPDX-License-Identifier: Apache-2.0
"""A device that is a CSV of measured operators."""

import csv
import pickle

import pytest
import torch
from torch import nn

from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, UnsupportedOp
from chipfit.flow.operators import SCALES, operators, scaled_op
from chipfit.graph import make_op
from chipfit.graph.capture import capture
from chipfit.targets import create
from chipfit.targets.measurements import class_of
from chipfit.targets.measurements_csv import (
    COLUMNS,
    read_measurements,
    row_of,
    signature,
    write_operators,
)


def net(width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU6(),
        nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU6(),
        nn.Conv2d(width, 4, 1), nn.Flatten(), nn.Linear(256, 5),
    ).eval()  # fmt: skip


def workload(width=8):
    return capture(net(width), torch.zeros(1, 3, 8, 8)).workload


def filled(path, nets, latency):
    """Write the form of ``nets`` with ``latency(op)`` filled in."""
    rows = operators(nets, (1, 3, 8, 8))
    for row in rows:
        row["latency_ms"] = "1"
    write_operators(path, rows)
    for row, known in zip(rows, read_measurements(path), strict=True):
        row["latency_ms"] = repr(latency(known.op))
    write_operators(path, rows)
    return path


def test_the_form_lists_every_operator_once(tmp_path):
    rows = operators([net(), net()], (1, 3, 8, 8), tmp_path / "o.csv")
    assert [row["kind"] for row in rows] == ["conv2d", "conv2d", "conv2d", "linear"]
    assert {row["count"] for row in rows} == {"2"}
    with (tmp_path / "o.csv").open() as file:
        assert tuple(csv.DictReader(file).fieldnames) == COLUMNS
    with pytest.raises(BadInput, match="holds no latency"):
        read_measurements(tmp_path / "o.csv")


def test_operators_with_a_row_cost_what_it_says(tmp_path):
    path = filled(tmp_path / "o.csv", [net()], lambda op: 1e-3 * op.macs)
    target = create(f"measurements:file={path},name=board")
    cost = target.cost(workload())
    assert cost.total["latency_ms"] == pytest.approx(1e-3 * workload().macs)
    own = [layer.cost.provenance for layer in cost.layers if layer.kind != "reshape"]
    assert own == ["measured"] * 4
    assert cost.total.provenance == "predicted"
    assert target.name == "board" and "board" in target.fingerprint


def test_an_affine_device_is_recovered_between_its_rows(tmp_path):
    def latency(op):
        return 0.01 + 1e-6 * op.macs

    path = filled(tmp_path / "o.csv", [net(w) for w in (4, 8, 16, 32, 64)], latency)
    target = create(f"measurements:file={path}")
    unseen = workload(24)
    cost = target.cost(unseen)
    for node, layer in zip(unseen.nodes, cost.layers, strict=True):
        if node.op.kind == "conv2d":
            assert layer.cost.provenance == "predicted"
            assert layer.cost["latency_ms"] == pytest.approx(latency(node.op), rel=1e-6)
    assert target.fits["depthwise convolutions"].error < 1e-6
    assert cost.total.spread["latency_ms"] < 1e-5
    guess = predict(unseen, target, CostTable()).total["latency_ms"]
    assert guess == pytest.approx(cost.total["latency_ms"])


def test_the_error_is_that_of_left_out_rows(tmp_path):
    # Two rows scale with MACs: each is guessed by the other's milliseconds per MAC.
    rows = ["kind,inputs,output,latency_ms", "linear,1x10,1x10,1", "linear,1x20,1x10,3"]
    (tmp_path / "o.csv").write_text("\n".join(rows))
    target = create(f"measurements:file={tmp_path / 'o.csv'}")
    assert target.fits["linear operators"].error == pytest.approx(0.5)
    op = make_op("linear", [(1, 40)], (1, 10), bias=True)
    cost = target.op_cost(op)
    assert cost.spread["latency_ms"] == pytest.approx(0.5 * cost["latency_ms"])


def test_classes_without_rows_are_refused_with_what_to_measure(tmp_path):
    rows = ["kind,inputs,output,kernel,groups,latency_ms",
            "conv2d,1x3x8x8,1x8x8x8,3x3,1,1", "linear,1x256,1x5,,,1"]  # fmt: skip
    (tmp_path / "o.csv").write_text("\n".join(rows))
    target = create(f"measurements:file={tmp_path / 'o.csv'}")
    reasons = {r.kind + str(i): r.reason for i, r in enumerate(target.refusals(workload()))}
    assert "no row for depthwise convolutions; measure it, or at least 2 others" in reasons.values()
    assert any("1 row for convolutions" in reason for reason in reasons.values())
    with pytest.raises(UnsupportedOp, match="depthwise"):
        target.cost(workload())


def test_signatures_survive_the_file(tmp_path):
    ops = [node.op for node in workload().nodes if node.op.kind != "reshape"]
    write_operators(tmp_path / "o.csv", [row_of(op) | {"latency_ms": "1"} for op in ops])
    assert [row.signature for row in read_measurements(tmp_path / "o.csv")] == [
        signature(op) for op in ops
    ]
    assert [row.op.macs for row in read_measurements(tmp_path / "o.csv")] == [op.macs for op in ops]


def test_scaled_operators_keep_their_kind():
    nodes = workload(16).nodes
    for node in nodes:
        for share in SCALES:
            op = scaled_op(node.op, share)
            if node.op.kind == "conv2d":
                assert class_of(op) == class_of(node.op)
    half = scaled_op(nodes[1].op, 0.5)
    assert (half.inputs[0], half.output, half["groups"]) == ((1, 8, 8, 8), (1, 8, 8, 8), 8)
    assert scaled_op(nodes[0].op, 0.5).inputs[0] == (1, 3, 8, 8)
    forms = operators([net(16)], (1, 3, 8, 8), scaled=True)
    assert len({tuple(r.values())[:8] for r in forms}) == len(forms) > 4


def test_rows_are_part_of_the_fingerprint_and_travel(tmp_path):
    one = create(f"measurements:file={filled(tmp_path / 'a.csv', [net()], lambda op: 1.0)}")
    two = create(f"measurements:file={filled(tmp_path / 'b.csv', [net()], lambda op: 2.0)}")
    assert one.fingerprint != two.fingerprint
    (tmp_path / "a.csv").unlink()
    assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint


HEAD = "kind,inputs,output,kernel,stride,dilation,groups,activation,latency_ms,spread_ms\n"


@pytest.mark.parametrize(("text", "message"), [
    ("a,b\n1,2\n", "no column kind, inputs, output, latency_ms"),
    (HEAD, "holds no latency"),
    (HEAD + "conv2d,1x3x8x8,1x4x8x8,,,,,none,1,\n", "kernel"),
    (HEAD + "conv2d,1x3,1x4,1x1,,,,none,1,\n", "1xCxHxW"),
    (HEAD + "linear,1xa,1x4,,,,,none,1,\n", "cannot read inputs '1xa' in line 2"),
    (HEAD + "linear,1x-3,1x4,,,,,none,1,\n", "is no shape"),
    (HEAD + "linear,1x3,1x4,,,,,none,fast,\n", "cannot read latency_ms 'fast'"),
    (HEAD + "linear,1x3,1x4,,,,,none,nan,\n", "not a positive number"),
    (HEAD + "linear,1x3,1x4,,,,,none,0,\n", "not a positive number"),
    (HEAD + "linear,1x3,1x4,,,,,swoosh,1,\n", "unknown activation 'swoosh'"),
    (HEAD + "linear,1x3,1x4,,,,,none,1,\nlinear,1x3,1x4,,,,,none,2,\n", "line 3 .* again"),
])  # fmt: skip
def test_wrong_rows_are_told_with_their_line(tmp_path, text, message):
    (tmp_path / "o.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        create(f"measurements:file={tmp_path / 'o.csv'}")


def test_wrong_options_are_explained(tmp_path):
    path = filled(tmp_path / "a.csv", [net()], lambda op: 1.0)
    with pytest.raises(BadInput, match="needs a file"):
        create("measurements")
    with pytest.raises(BadInput, match="cannot read"):
        create(f"measurements:file={tmp_path / 'absent.csv'}")
    with pytest.raises(BadInput, match="unknown precision"):
        create(f"measurements:file={path},precision=int3")
    with pytest.raises(BadInput, match="call_ms"):
        create(f"measurements:file={path},call_ms=-1")
    total = create(f"measurements:file={path},call_ms=10").cost(workload()).total
    assert total["latency_ms"] == pytest.approx(14)
