"""RAN-e's and RAN-i's tables on small settings, and the accounting behind them."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.ran_e_explain import bound_rows, kind_rows, output_rows, utilisation_rows  # noqa: E402
from benchmarks.ran_e_layers import KINDS, Exported, waiting  # noqa: E402
from benchmarks.ran_e_table import EXPLAINED, LAYOUTS, PAPER, configurations  # noqa: E402
from benchmarks.ran_i_fps import PAIRS, TOP1, Entry, measured_target, speed, summary_rows  # noqa: E402
from benchmarks.run import QUICK  # noqa: E402
from chipfit.errors import BadInput, ChipfitError  # noqa: E402
from chipfit.graph.capture import capture  # noqa: E402
from chipfit.nets import NETS  # noqa: E402
from chipfit.targets import create  # noqa: E402
from chipfit.targets.compare import Comparison  # noqa: E402
from chipfit.targets.ethos_u import EthosU  # noqa: E402
from chipfit.targets.timing import Protocol  # noqa: E402
from chipfit.targets.vela import VelaRow  # noqa: E402


def results(name, out):
    """Return the rows of every table that a benchmark wrote, by title."""
    tables = json.loads((out / f"{name}.json").read_text())["tables"]
    return {table["title"]: table["rows"] for table in tables}


@pytest.fixture(scope="module")
def compiled():
    target = EthosU("ethos-u55-128")
    return Exported.of("ran_e_gt@1x3x32x32").compiled_for(target)


def test_every_cycle_belongs_to_one_kind_of_layer(compiled):
    rows = {row["kcycles"]: row["net"] for row in kind_rows({"net": compiled}, ["net"])}
    assert list(rows) == [*KINDS, "all"]
    assert sum(rows[kind] for kind in KINDS) == pytest.approx(rows["all"])
    assert rows["all"] * 1e3 == compiled.result.cycles
    # GT: ten inverted residuals and the head, seven dense convolutions, two norms at shortcuts.
    kinds = list(compiled.kinds.values())
    expected = {"stem": 1, "dense convolution": 7, "depthwise": 11, "unfolded batch norm": 2,
                "addition": 6, "pooling": 1, "pointwise": 21}  # fmt: skip
    assert {kind: kinds.count(kind) for kind in expected} == expected


def test_use_of_the_mac_units_is_macs_over_cycles(compiled):
    rows = {r["MACs used %"]: r["net"] for r in utilisation_rows({"net": compiled}, ["net"])}
    own = [row for row in compiled.rows_of("depthwise") if row.macs]
    expected = sum(r.macs for r in own) / sum(r.npu_cycles for r in own) / 128
    assert rows["depthwise"] == pytest.approx(100 * expected)
    assert all(0 < value <= 100 for value in rows.values())
    assert "addition" not in rows


def test_waiting_and_arithmetic_make_up_all_cycles(compiled):
    (row,) = bound_rows({"net": compiled}, ["net"])
    parts = [row["NPU %"], *(value for key, value in row.items() if key.startswith("waits"))]
    assert sum(parts) == pytest.approx(100)
    # Images of 32 pixels leave little work per weight: flash is what is waited for.
    assert row["waits for off-chip flash %"] > 50


def test_a_row_waits_for_its_slowest_memory():
    def row(npu, **access):
        return VelaRow("n", "o", "o", max(npu, *access.values()), npu, 0, True, access)

    slow, quick = row(10, SRAM=20, DRAM=70), row(30, SRAM=20, DRAM=25)
    assert (slow.bound_by, quick.bound_by) == ("DRAM", "NPU")
    found = waiting([slow, quick, row(5, SRAM=7, DRAM=0)])
    assert {key: value for key, value in found.items() if value} == {"DRAM": 60, "SRAM": 2}
    assert VelaRow("n", "o", "o", 5, 5, 0, True).bound_by == "NPU"


def test_a_convolution_keeps_its_cost_though_the_next_pads():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    cost = create("ethos-u65-512").cost(capture(net, torch.zeros(1, 3, 32, 32)))
    convolution, pool = cost.layers
    assert (convolution.kind, pool.kind) == ("conv2d", "max_pool2d")
    assert convolution.cost["cycles"] > 0
    assert pool.cost["cycles"] > 0
    assert convolution.cost["cycles"] + pool.cost["cycles"] == cost.total["cycles"]


def test_the_fewest_cycles_per_output_are_hardswish_dearer(compiled):
    relu6 = Exported.of("ran_e_gt:activation=relu6@1x3x32x32").compiled_for(compiled.target)
    rows = output_rows({"net": compiled, "net:activation=relu6": relu6}, ["net"])
    assert [row["NPU cycles per output, at least"] for row in rows] == ["ReLU6", "hardswish"]
    assert rows[1]["pointwise"] > rows[0]["pointwise"] > 0


def test_steps_that_vela_numbers_are_charged_to_their_operator():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.Conv2d(4, 4, 3))
    cost = create("ethos-u55-128").cost(capture(net, torch.zeros(1, 3, 18, 18)))
    cycles = {layer.kind: layer.cost["cycles"] for layer in cost.layers}
    assert cycles["pixel_shuffle"] > 0
    assert sum(layer.cost["cycles"] for layer in cost.layers) == cost.total["cycles"]


def test_layers_of_an_unknown_kind_are_refused(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PixelShuffle(2))\n"
    )
    target = EthosU("ethos-u55-128")
    with pytest.raises(ChipfitError, match="no kind of layer for pixel_shuffle"):
        _ = Exported.of(f"{tmp_path / 'net.py'}:make@1x3x8x8").compiled_for(target).kinds


def test_layouts_are_known_to_vela_and_the_explained_ones_among_them():
    every = [f"ethos-{family}-256" for family in LAYOUTS]
    assert len(configurations(every, [])) == sum(map(len, LAYOUTS.values()))
    assert len(configurations(every, ["Sram_Only"])) == 2
    for accelerator, *layout in EXPLAINED:
        assert tuple(layout) in LAYOUTS[accelerator.split("-")[1]]


def test_ran_e_table(tmp_path):
    module = importlib.import_module("benchmarks.ran_e_table")
    assert module.main(["--out", str(tmp_path), *QUICK["ran_e_table"]]) == 0
    tables = results("ran_e_table", tmp_path)
    paper, ours, _ = tables["inferences a second, relative to EfficientNet-Lite0"]
    assert paper["RAN-e-GT"] == PAPER["u55"]["RAN-e-GT"] == 1.16
    by_activation = tables["inferences a second, relative to EfficientNet-Lite0, by activation"][0]
    assert by_activation["RAN-e-GT"] == ours["RAN-e-GT"]
    assert by_activation["RAN-e-GT, ReLU6"] > ours["RAN-e-GT"]
    title = "ethos-u55-256 High_End_Embedded Sram_Only"
    hardswish = tables[f"{title}: what hardswish costs, kcycles by kind of layer"][0]
    parts = sum(value for key, value in hardswish.items() if key in KINDS)
    assert parts == pytest.approx(hardswish["hardswish - ReLU6, kcycles"])
    layers = tables[f"{title}: dearest layers of RAN-e-GT"]
    assert [row["kcycles"] for row in layers] == sorted(
        (row["kcycles"] for row in layers), reverse=True
    )


def test_ran_i_fps(tmp_path):
    module = importlib.import_module("benchmarks.ran_i_fps")
    assert module.main(["--out", str(tmp_path), *QUICK["ran_i_fps"]]) == 0
    *_, summary = results("ran_i_fps", tmp_path).values()
    assert summary[0]["target"] == "MACs"
    first = next(iter(results("ran_i_fps", tmp_path).values()))
    assert [row["widths"] for row in first] == ["published", "multiples of 8"]
    for row in first:
        assert row["from"] <= row["FPS x"] <= row["to"]
        assert row["A/A ±%"] >= 0
        assert row["verdict"] in ("faster", "slower", "indistinguishable")


def test_frames_a_second_are_the_inverse_of_the_time():
    row = speed(Comparison(ratio=0.5, low=0.4, high=0.8, noise=0.01))
    assert (row["FPS x"], row["from"], row["to"]) == (2.0, 1.25, 2.5)
    assert row["verdict"] == "faster"


def test_pairs_name_networks_that_there_are():
    names = {entry.name for entry in NETS}
    for pair in PAIRS:
        for multiple in (1, 8):
            entry = Entry(pair, multiple)
            assert {entry.net, entry.reference} <= names
            assert {entry.net, entry.reference} <= TOP1.keys()
    assert Entry("B/S", 8).spec == "ran_i_base:width_multiple=8"
    assert Entry("B/S", 1).reference == "convnext_small"


def test_the_summary_puts_pairs_side_by_side():
    def row(pair, target, rounding, fps):
        return {"pair": pair, "target": target, "widths": rounding, "MACs x fewer": 1.5,
                "FPS x": fps, "from": fps - 0.1, "to": fps + 0.1}  # fmt: skip

    rows = summary_rows([row("T/T", "a", "published", 1.2), row("S/S", "a", "published", 1.4)])
    assert rows[0] == {"target": "MACs", "widths": "published", "T/T": 1.5, "S/S": 1.5}
    assert rows[1]["S/S"] == "1.40 (1.30..1.50)"


def test_targets_that_measure_nothing_are_refused():
    with pytest.raises(BadInput, match="measures nothing"):
        measured_target("analytic", Protocol())
