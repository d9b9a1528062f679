import importlib.util
import json

import pytest

from benchmarks.prune_anything import failures, main, measure, stored, summary

for needed in ("timm", "torch_pruning"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)
SMALL = ["lcnet_035", "tf_mobilenetv3_small_minimal_100"]


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    path = tmp_path_factory.mktemp("prune") / "0.7-8.jsonl"
    return path, measure(SMALL, path, 0.7, 8, 240.0, 10.0, workers=2)


def test_small_networks_are_narrowed_and_right(answered):
    _, rows = answered
    ours = [row for row in rows if row["way"] == "chipfit"]
    assert [row["model"] for row in ours] == SMALL
    for row in ours:
        assert row["ok"], row
        assert 0.4 < row["share"] <= 0.7
        assert row["difference"] < 1e-6


def test_what_is_stored_is_not_asked_again(answered):
    path, rows = answered
    before = path.read_text()
    with path.open("a") as file:
        file.write('{"model": "lcnet_035", "way": "chi')  # killed in the middle of a line
    # A limit of no time would cut whatever is asked.
    assert measure(SMALL, path, 0.7, 8, 0.0, 10.0) == rows
    path.write_text(before)
    assert len(stored(path)) == 4


def test_the_command_prints_what_is_stored(answered, tmp_path, capsys):
    path, rows = answered
    main(["--models", *SMALL, "--store", str(path.parent), "--out", str(tmp_path)])
    assert "narrowed to 70% of the MACs" in capsys.readouterr().out
    table = json.loads((tmp_path / "prune_anything.json").read_text())["tables"][0]["rows"]
    assert table == summary(rows)


def test_reasons_are_counted():
    fails = (
        "BadInput: Net fails on an input of shape (1, 3, 8, 8): shape '[1, {}]' is wrong (give the"
    )
    bad = {"way": "chipfit"}
    rows = [
        {"model": "a", "reason": fails.format(2), **bad},
        {"model": "b", "reason": fails.format(30), **bad},
        {"model": "c", "runs": True, "onnx": "no such operator", **bad},
        {"model": "d", "ok": True, **bad},
        {"model": "e", "reason": "takes over 9 s", "cut": True, **bad},
        {"model": "f", "runs": True, "onnx": "not before", "int8": "lost", **bad},
    ]
    assert [(row["reason"], row["models"]) for row in failures(rows)] == [
        ("narrowed, it fails: shape '[N, N]' is wrong", 2), ("ONNX: no such operator", 1),
        ("takes over 9 s", 1), ("int8 TFLite is lost", 1),
    ]  # fmt: skip


def test_what_the_original_has_not_is_not_asked_for():
    row = {"model": "a", "share": 0.7, "runs": True, "difference": 0.0, "int8": "yes"}
    rows = [
        {**row, "way": way, "onnx": onnx, "ok": True}
        for way in ("chipfit", "Torch-Pruning") for onnx in ("yes", "not before")
    ]  # fmt: skip
    line = summary(rows)[0]
    assert line["ONNX, of those before"] == "1 of 1"
    assert line["int8 TFLite, of those before"] == "2 of 2"
    assert line["all of it"] == 2
