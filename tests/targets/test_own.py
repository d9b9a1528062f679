# SPDX-License-Identifier: Apache-2.0
"""``OperatorTarget`` and factories in target names."""

import pickle

import pytest
import torch
from torch import nn

from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, UnknownName, UnsupportedOp
from chipfit.graph.capture import capture
from chipfit.targets import create
from chipfit.targets.own import OperatorTarget
from chipfit.workers import WorkerPool

FILE = """
from chipfit.targets.own import OperatorTarget

class Slow(OperatorTarget):
    name = "slow"
    call_ms = 0.5

    def __init__(self, factor=1.0):
        self.factor = factor

    def latency_ms(self, op):
        return None if op.kind == "softmax" else self.factor * (1 + op.macs)

    def energy_mj(self, op):
        return 2.0

    def peak_sram_bytes(self, workload):
        return 4.0 * workload.peak_activation_elements()

def board(factor="1"):
    return Slow(float(factor))

def wrong():
    return 7

def broken():
    raise RuntimeError("no probe")
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "board.py").write_text(FILE)
    return str(tmp_path / "board.py")


@pytest.fixture(scope="module")
def workload():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Flatten())
    return capture(net.eval(), torch.zeros(1, 3, 2, 2)).workload


def test_a_network_is_the_sum_of_its_operators(place, workload):
    cost = create(f"{place}:board:factor=3").cost(workload)
    assert cost.total["latency_ms"] == pytest.approx(0.5 + 3 * (1 + 48) + 3 * (1 + 80) + 3)
    assert cost.total["peak_sram_bytes"] == 4 * 36
    assert cost.total["macs"] == workload.macs
    assert cost.total["energy_mj"] == 3 * 2.0
    assert [layer.name for layer in cost.layers] == [node.name for node in workload.nodes]


def test_predictions_are_exact_and_survive_workers(place, workload):
    target = create(f"{place}:board")
    whole = target.cost(workload).total
    assert predict(workload, target, CostTable()).total["latency_ms"] == whole["latency_ms"]
    with WorkerPool(1) as pool:
        [(_, costs)] = pool.map(_price, [(target, target.units(workload)[:1])])
    assert costs[0] == target.cost_units(target.units(workload)[:1])[0]


def _price(_, item):
    target, units = item
    return target.cost_units(units)


def test_edits_of_the_file_change_the_fingerprint(tmp_path, place):
    first = create(f"{place}:board").fingerprint
    assert first == create(f"{place}:board").fingerprint
    (tmp_path / "other.py").write_text(FILE.replace("1 + op.macs", "2 + op.macs"))
    assert create(f"{tmp_path / 'other.py'}:board").fingerprint != first
    assert "slow" in first


def test_operators_without_a_latency_are_refused(place):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1)).eval()
    workload = capture(net, torch.zeros(1, 3, 2, 2)).workload
    target = create(f"{place}:board")
    assert [refusal.kind for refusal in target.refusals(workload)] == ["softmax"]
    with pytest.raises(UnsupportedOp, match="slow has no latency for it"):
        target.cost(workload)


def test_wrong_factories_are_explained(place, tmp_path):
    with pytest.raises(UnknownName, match="did you mean board"):
        create(f"{place}:bord")
    with pytest.raises(BadInput, match="does not name a factory"):
        create(place)
    with pytest.raises(BadInput, match="returns a int"):
        create(f"{place}:wrong")
    with pytest.raises(BadInput, match="RuntimeError: no probe"):
        create(f"{place}:broken")
    with pytest.raises(BadInput, match="there is no file"):
        create(f"{tmp_path / 'absent.py'}:board")
    with pytest.raises(UnknownName, match="did you mean factor"):
        create(f"{place}:board:facto=1")
    with pytest.raises(BadInput, match="ValueError"):
        create(f"{place}:board:factor=fast")
    with pytest.raises(BadInput, match="cannot be imported"):
        create("no.such.module:board")
    with pytest.raises(UnknownName, match="unknown target"):
        create("no-such-target")


class Negative(OperatorTarget):
    def latency_ms(self, op):
        return -1.0


def test_impossible_latencies_are_an_error(workload):
    with pytest.raises(BadInput, match="latency_ms=-1"):
        Negative().cost(workload)
    with pytest.raises(BadInput, match="reads no files"):
        Negative().cost_file("net.onnx")


def test_targets_of_importable_modules_pickle():
    target = Negative()
    if Negative.__module__ in __import__("sys").modules:
        assert pickle.loads(pickle.dumps(target)).fingerprint == target.fingerprint
