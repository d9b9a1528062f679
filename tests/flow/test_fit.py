import json

import pytest
import torch

import chipfit as cf
from chipfit.errors import BadInput, InfeasibleBudget, RunMismatch, UnknownName
from chipfit.flow.result import open_run

QUICK = {
    "epochs": 1,
    "recovery_epochs": 0.3,
    "method": "netadapt",
    "method_options": {"steps": 2, "short_steps": 2, "val_images": 50},
    "workers": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    lines = []
    result = cf.fit(
        "tiny_mobilenet_v2", "ethos-u55-128", "latency_ms=75%", "digits", run=folder / "run",
        table=folder / "costs.sqlite", progress=lines.append, **QUICK,
    )  # fmt: skip
    return result, lines, folder


def test_the_family_is_complete_and_the_budget_is_met_by_the_file(finished):
    result, lines, _ = finished
    assert result.budget_met
    members = result.members()
    assert members[0].id == "original"
    assert len(members) >= 2
    for member in members:
        assert set(member.metrics) >= {"val_accuracy", "test_accuracy", "int8_test_accuracy"}
        assert {"latency_ms", "cycles", "macs", "params", "peak_sram_bytes"} <= set(
            member.cost.values
        )
        assert member.cost.provenance == "compiled"
        assert member.candidate.predicted["latency_ms"] == pytest.approx(
            member.cost["latency_ms"], rel=0.03
        )
        assert member.candidate.cpu["latency_ms"] > 0
        assert set(member.candidate.verify) == {"tflite", "onnx"}
        assert member.candidate.layers
    inside = result.front().within(result.budget).best()
    assert inside.cost["latency_ms"] <= result.budget.limits["latency_ms"]
    assert inside.candidate.changes[0]["latency_ms_saved"] > 0
    assert any("proposal" in line for line in lines)


def test_exported_files_verify_and_members_rebuild(finished):
    result, _, folder = finished
    best = result.member("best")
    path = best.export(folder / "out" / "best.tflite")
    checked = cf.verify(path, "ethos-u55-128", against=f"{result.folder}:{best.id}")
    assert checked.cost.total["cycles"] == best.cost["cycles"]
    assert checked.top1_agreement == best.candidate.verify["tflite"]["top1_agreement"]
    assert abs(checked.errors()["latency_ms"]) < 0.03
    task = cf.tasks.classification("digits")
    again = open_run(result.folder, net=cf.nets.create(
        "tiny_mobilenet_v2", num_classes=10, input_shape=task.input_shape
    )).member(best.id).module()  # fmt: skip
    assert task.evaluate(again, "test")["accuracy"] == best.metrics["test_accuracy"]
    with pytest.raises(BadInput, match="no pth file"):
        best.export(folder / "best.pth")
    with pytest.raises(BadInput, match=r"runs \.tflite files"):
        cf.verify(best.export(folder / "best.onnx"), "ethos-u55-128")


def test_no_pickles_are_kept(finished):
    result, _, _ = finished
    kinds = {p.suffix for p in result.folder.rglob("*") if p.is_file()}
    assert kinds <= {
        ".json",
        ".jsonl",
        ".safetensors",
        ".tflite",
        ".onnx",
        ".html",
        ".png",
        ".lock",
        "",
    }


def test_continuing_a_finished_run_does_no_work(finished):
    result, _, folder = finished
    before = [
        e for e in result._run.journal if e["event"] not in ("stage", "continued", "finished")
    ]
    again = cf.fit(
        "tiny_mobilenet_v2", "ethos-u55-128", "latency_ms=75%", "digits", run=folder / "run",
        table=folder / "costs.sqlite", **QUICK,
    )  # fmt: skip
    after = [e for e in again._run.journal if e["event"] not in ("stage", "continued", "finished")]
    assert [e for e in after if e["event"] != "budget"] == [
        e for e in before if e["event"] != "budget"
    ]
    assert json.dumps(again.to_json()) == json.dumps(result.to_json())
    with pytest.raises(RunMismatch, match="seed"):
        cf.fit("tiny_mobilenet_v2", "ethos-u55-128", "latency_ms=75%", "digits",
               run=folder / "run", seed=1, table=folder / "costs.sqlite", **QUICK)  # fmt: skip


def test_a_users_own_trained_module(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 24, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(24, 24, 3, 2),
        torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(24 * 9, 10),
    )  # fmt: skip
    task = cf.tasks.classification("digits")
    from chipfit.train.loop import fit_model

    fit_model(net, task, task.recipe.replace(epochs=2))
    trained = {k: v.clone() for k, v in net.state_dict().items()}
    result = cf.fit(
        net, "analytic", {"macs": "60%"}, task, run=tmp_path / "run", recovery_epochs=0.5,
        method="netadapt", method_options={"steps": 2, "short_steps": 2}, workers=1,
    )  # fmt: skip
    assert result.budget_met
    assert all(
        torch.equal(v, trained[k])
        for k, v in result.member("original").module().state_dict().items()
    )


def test_a_hopeless_budget_is_refused_before_anything_is_trained(tmp_path):
    lines = []
    with pytest.raises(InfeasibleBudget, match="narrowest network costs latency_ms"):
        cf.fit("tiny_mobilenet_v2", "ethos-u55-128", {"latency_ms": 0.001}, "digits",
               run=tmp_path / "run", progress=lines.append, workers=1)  # fmt: skip
    assert not any("training" in line for line in lines)


def test_unknown_names(tmp_path):
    base = {"run": tmp_path / "run", "workers": 1}
    with pytest.raises(UnknownName, match="unknown target") as caught:
        cf.fit("tiny_mobilenet_v2", "ethos-u55-129", "macs=1", "digits", **base)
    assert "ethos-u55-128" in caught.value.hint
    with pytest.raises(UnknownName, match="unknown method"):
        cf.fit("tiny_mobilenet_v2", "analytic", "macs=1", "digits", method="netadap", **base)
    with pytest.raises(UnknownName, match="option of auto"):
        cf.fit(
            "tiny_mobilenet_v2", "analytic", "macs=1", "digits", method_options={"stepz": 1}, **base
        )
    with pytest.raises(UnknownName, match="setting"):
        cf.fit("tiny_mobilenet_v2", "analytic", "macs=1", "digits", epoch=1, **base)
    assert not (tmp_path / "run").exists()
