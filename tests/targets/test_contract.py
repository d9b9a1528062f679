# SPDX-License-Identifier: Apache-2.0
"""What every registered target promises."""

import json
import pickle

import pytest
import torch

from chipfit.cost import COST_KEYS, Cost
from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, UnknownName, UnsupportedOp
from chipfit.graph import Node, Workload, make_op
from chipfit.targets import TARGETS, create
from chipfit.targets.timing import Protocol

pytest.importorskip("ethosu")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

#: Targets that are nothing without options; their own tests are elsewhere.
NEED_OPTIONS = {"measurements"}
GPU = torch.cuda.is_available()
LEFT_OUT = NEED_OPTIONS if GPU else NEED_OPTIONS | {"cuda"}
NAMES = [entry.name for entry in TARGETS if entry.name not in LEFT_OUT]
#: Options that change how a network runs are targets of their own.
SPECS = [
    *NAMES,
    "onnxruntime-cpu:precision=int8",
    "openvino-cpu:precision=int8",
    "torch-cpu:mode=channels_last",
    *(["cuda:precision=float16", "cuda:replay=yes"] if GPU else []),
]


@pytest.fixture(params=SPECS)
def target(request):
    made = create(request.param)
    if made.provenance == "measured":
        made.protocol = Protocol(min_rounds=3, max_rounds=5, sessions=1, warm_up=2)
    return made


@pytest.fixture
def network(bottlenecks):
    return bottlenecks([16, 24])


def refused_network():
    shape = (1, 8, 4, 4)
    relu = Node("body.act", make_op("activation", [shape], shape, activation="relu"), ("x",), "a")
    fft = make_op("unsupported", [shape], shape, aten="aten::fft_fft")
    return Workload(
        (relu, Node("body.fft", fft, ("a",), "b")), ("x",), ("b",), dict.fromkeys("xab", shape)
    )


def test_attributes_are_told(target):
    assert target.name in NAMES
    assert target.precision in ("int8", "float16", "float32")
    assert not target.precisions or target.precision in target.precisions
    assert target.file_format in ("tflite", "onnx", "")
    assert target.provenance in ("compiled", "measured", "modelled")
    assert target.alignment >= 1


def test_fingerprints_are_stable_and_distinct(target):
    assert target.fingerprint == create(target.spec).fingerprint
    assert target.name in target.fingerprint
    assert target.precision in target.fingerprint
    others = [create(name).fingerprint for name in SPECS if name != target.spec]
    assert target.fingerprint not in others


def test_costs_have_known_keys_and_positive_figures(target, network):
    cost = target.cost(network)
    assert cost.total.provenance == target.provenance
    assert set(cost.total.values) <= set(COST_KEYS)
    assert cost.total["macs"] == network.macs
    assert cost.total["params"] == network.parameter_count
    assert all(value > 0 for value in cost.total.values.values())
    if target.provenance == "measured":
        assert cost.total.spread["latency_ms"] >= 0
    assert [layer.name for layer in cost.layers] == [node.name for node in network.nodes]
    assert sum(layer.cost["macs"] for layer in cost.layers) == network.macs
    for key in ("cycles", "latency_ms"):
        # Where a compiler leaves nothing of the layers, they have no times of their own.
        if key in cost.total and any(key in layer.cost for layer in cost.layers):
            layers = sum(layer.cost[key] for layer in cost.layers)
            assert layers == pytest.approx(cost.total[key])


def test_costs_survive_json(target, network):
    total = target.cost(network).total
    assert Cost.from_json(json.loads(json.dumps(total.to_json()))) == total


def test_compiled_costs_are_deterministic(target, network):
    if target.provenance == "measured":
        pytest.skip("measurements scatter")
    assert target.cost(network) == create(target.spec).cost(network)


def test_units_cover_every_node_once(target, network):
    units = target.units(network)
    focused = [unit.workload.nodes[i].name for unit in units for i in unit.focus]
    assert sorted(focused) == sorted(node.name for node in network.nodes)
    assert [unit.key for unit in units] == [unit.key for unit in target.units(network)]
    costs = target.cost_units(units[:2])
    assert len(costs) == 2
    assert all(cost.provenance == target.provenance for cost in costs)


def test_predictions_agree_in_what_does_not_depend_on_the_device(target, network):
    whole, guess = target.cost(network).total, predict(network, target, CostTable()).total
    assert guess.provenance == "predicted"
    assert set(guess.values) <= set(whole.values)
    for key in ("macs", "params", "weight_bytes"):
        assert guess[key] == whole[key]


def test_refused_operators_are_named_with_their_place(target):
    network = refused_network()
    assert "body.fft" in [refusal.name for refusal in target.refusals(network)]
    with pytest.raises(UnsupportedOp, match=r"body\.fft"):
        target.cost(network)
    with pytest.raises(UnsupportedOp, match=r"body\.fft"):
        target.cost_units(target.units(network))


def test_a_good_network_is_not_refused(target, network):
    assert target.refusals(network) == []
    target.check(network)


def test_unreadable_files_are_bad_input(target, tmp_path):
    with pytest.raises(BadInput):
        target.cost_file(tmp_path / "absent")
    (tmp_path / "text").write_text("hello, this is no network")
    with pytest.raises(BadInput):
        target.cost_file(tmp_path / "text")


def test_targets_travel_to_other_processes(target):
    assert pickle.loads(pickle.dumps(target)).fingerprint == target.fingerprint


def test_names_with_options():
    target = create("ethos-u55-128:memory_mode=Sram_Only")
    assert "memory_mode=Sram_Only" in target.fingerprint
    assert target.fingerprint == create("ethos-u55-128", memory_mode="Sram_Only").fingerprint
    assert create("analytic:precision=float32").precision == "float32"
    with pytest.raises(UnknownName, match="did you mean ethos-u55-128"):
        create("ethos-u55-12")
    with pytest.raises(UnknownName, match="did you mean memory_mode"):
        create("ethos-u55-128:memory=Sram_Only")
    with pytest.raises(UnknownName, match="did you mean Sram_Only"):
        create("ethos-u55-128:memory_mode=Sram_only")
    with pytest.raises(UnknownName, match="Ethos_U65_High_End"):
        create("ethos-u65-256:system_config=Ethos_U55_High_End_Embedded")
    with pytest.raises(BadInput, match="twice"):
        create("analytic:precision=int8", precision="int8")
    with pytest.raises(BadInput, match="option=value"):
        create("analytic:int8")
    with pytest.raises(BadInput, match="unknown precision"):
        create("analytic:precision=int3")
    with pytest.raises(BadInput, match="not a positive number"):
        create("onnxruntime-cpu:threads=none")
