# SPDX-License-Identifier: Apache-2.0
"""Members of a run on targets that run int8 ONNX files, or no files at all."""

import pytest

import chipfit as cf
from chipfit.cost.table import CostTable
from chipfit.files import write_state
from chipfit.flow.data import open_task
from chipfit.flow.finalise import FLOAT_ONNX, file_metric, finish_all
from chipfit.flow.network import load_network
from chipfit.flow.settings import Settings, run_config, target_facts
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import create
from chipfit.targets.timing import Protocol
from chipfit.train.jobs import Bench
from chipfit.workers import WorkerPool

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

QUICK = Protocol(min_rounds=3, max_rounds=4, sessions=1, warm_up=1)


@pytest.mark.parametrize("spec", ["onnxruntime-cpu:precision=int8", "torch-cpu:mode=channels_last"])
def test_members_are_measured_as_the_target_runs_them(spec, tmp_path):
    target = create(spec)
    target.protocol = QUICK
    task = open_task("digits", None)
    loaded = load_network(
        "tiny_mobilenet_v2", num_classes=task.num_classes, data_shape=task.input_shape
    )
    config = run_config(loaded, target, task, cf.Budget.parse("macs=95%"), Settings(), {},
                        task.recipe, True)  # fmt: skip
    assert config["target"] == spec
    run = Run.open(tmp_path, config, target_facts(target))
    weights = run.candidate_folder(ORIGINAL) / "weights.safetensors"
    write_state(weights, loaded.net.state_dict())
    candidate = Candidate(ORIGINAL, weights=str(weights.relative_to(run.folder)))
    pool = WorkerPool(1, Bench(loaded.net, task), lambda line: None)
    try:
        (member,) = finish_all([candidate], run, target, CostTable(), pool, loaded.example(),
                               loaded.net, lambda line: None)  # fmt: skip
    finally:
        pool.close()
        run.close()
    assert member.provenance == "measured"
    assert member.cost["latency_ms"] > 0
    assert member.predicted["latency_ms"] > 0
    assert member.cpu["latency_ms"] > 0  # the float file, whatever the target
    if target.precision == "float32":
        assert set(member.files) == {"tflite", "onnx"}
        return
    assert set(member.files) == {"tflite", "onnx", FLOAT_ONNX}
    assert set(member.verify) == {"tflite", "onnx", FLOAT_ONNX}
    assert member.verify[FLOAT_ONNX]["max_abs_error"] < member.verify["onnx"]["max_abs_error"]
    file = run.folder / member.files["onnx"]
    assert member.metrics["int8_test_accuracy"] == file_metric(task, file)
    assert any(layer["name"] == "features.0.0" for layer in member.layers)
    checked = cf.verify(file, target)
    assert checked.cost.total["weight_bytes"] == member.cost["weight_bytes"]
    assert "int8" in {layer.precision for layer in checked.cost.layers}
