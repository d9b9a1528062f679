# SPDX-License-Identifier: Apache-2.0
"""Microcontroller targets: the arena is measured, the latency is the table's arithmetic."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, UnsupportedOp
from chipfit.export.tflite import synthetic_ranges, to_tflite
from chipfit.graph.capture import capture
from chipfit.targets import create
from chipfit.targets.cortex_m import CortexM
from chipfit.targets.cortex_m_arena import measure_arena
from chipfit.targets.cortex_m_board import fit_board
from chipfit.targets.cortex_m_figures import CORES, WORK
from chipfit.targets.cortex_m_model import _Operator, _work, work_of_file

pytest.importorskip("tflite_micro")
pytest.importorskip("ethosu")
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.microcontrollers import latency_rows, programs, refitted

CONV_MACS, DEPTHWISE_MACS, DENSE_MACS = 8 * 8 * 16 * 27, 8 * 8 * 16 * 9, 16 * 10


@pytest.fixture(scope="module")
def program():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Hardswish(), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    return capture(net.eval(), torch.zeros(1, 3, 8, 8))


@pytest.fixture(scope="module")
def published():
    return programs()


def tflite(program):
    return to_tflite(program, synthetic_ranges(program.workload)).data


def test_every_core_has_every_constant_with_its_source():
    for core in CORES.values():
        assert set(core.constants) == set(WORK)
        assert all(c.cycles > 0 and c.source for c in core.constants.values())
        assert not core.constants["conv_macs"].estimated


def test_work_is_counted_exactly(program):
    works = work_of_file(tflite(program), "net")
    total = {key: sum(work.counts.get(key, 0) for work in works) for key in WORK}
    assert total["conv_macs"] == CONV_MACS
    assert total["depthwise_macs"] == DEPTHWISE_MACS
    assert total["dense_macs"] == DENSE_MACS
    assert total["outputs"] == 2 * 8 * 8 * 16 + 10
    assert total["elementwise"] == 8 * 8 * 16
    assert total["pooled"] == 8 * 8 * 16
    assert total["operators"] == len(works)
    assert sum(work.macs for work in works) == program.workload.macs


@pytest.mark.parametrize("core", CORES)
def test_latency_is_the_sum_of_work_times_constants(core, program):
    target = CortexM(core)
    constants = {key: value.cycles for key, value in CORES[core].constants.items()}
    works = work_of_file(tflite(program), "net")
    cycles = sum(constants[k] * n for work in works for k, n in work.counts.items())
    total = target.cost(program).total
    assert total["cycles"] == pytest.approx(cycles)
    assert total["latency_ms"] == pytest.approx(cycles / CORES[core].clock_mhz / 1e3)
    assert total["flash_bytes"] == len(tflite(program))
    assert total.provenance == "modelled"


def test_clock_scales_latency_and_not_cycles(program):
    slow, fast = (create(f"cortex-m4:clock_mhz={mhz}").cost(program).total for mhz in (60, 120))
    assert slow["latency_ms"] == pytest.approx(2 * fast["latency_ms"])
    assert slow["cycles"] == fast["cycles"]


def test_the_arena_is_the_interpreters(program):
    arena = measure_arena(tflite(program), "net")
    assert arena.total_bytes >= arena.head_bytes + arena.tail_bytes
    # Hard-swish reads one map of 8 x 8 x 16 while it writes another; both are alive.
    assert arena.head_bytes >= 2 * 8 * 8 * 16
    assert CortexM("cortex-m33").cost(program).total["peak_sram_bytes"] == arena.total_bytes
    # The interpreter itself: the arena is enough, a quarter of it is not.
    from tflite_micro.python.tflite_micro import runtime

    runtime.Interpreter.from_bytes(tflite(program), arena_size=arena.total_bytes + 64)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(tflite(program), arena_size=arena.total_bytes // 4)


def test_files_cost_what_their_network_costs(program, tmp_path):
    (tmp_path / "net.tflite").write_bytes(tflite(program))
    target = create("cortex-m7")
    whole, file = target.cost(program).total, target.cost_file(tmp_path / "net.tflite").total
    assert file.values == pytest.approx(dict(whole.values))
    assert {layer.runs_on for layer in target.cost(program).layers} == {"mcu"}


def test_runtime_nodes_share_the_time(program, tmp_path):
    nodes = create("cortex-m4").runtime_nodes(program)
    assert sum(node.share for node in nodes) == pytest.approx(1)
    assert {node.kind for node in nodes} >= {"CONV_2D", "DEPTHWISE_CONV_2D", "HARD_SWISH"}
    assert all(node.precision == "int8" for node in nodes)


def test_operators_without_a_kernel_are_refused_by_name():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GELU()).eval()
    workload = capture(net, torch.zeros(1, 3, 4, 4)).workload
    target = create("cortex-m4")
    [refusal] = target.refusals(workload)
    assert "GELU" in refusal.reason
    with pytest.raises(UnsupportedOp, match="GELU"):
        target.cost(workload)
    with pytest.raises(UnsupportedOp, match="GELU"):
        target.cost_units(target.units(workload))


def test_the_interpreters_own_refusal_names_the_operator():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GELU()).eval()
    program = capture(net, torch.zeros(1, 3, 4, 4))
    with pytest.raises(UnsupportedOp, match="no kernel for GELU in the file"):
        measure_arena(tflite(program), "the file")


def test_the_roofline_is_the_dense_peak():
    roof = create("cortex-m4:clock_mhz=100").roofline()
    assert roof.macs_per_s == pytest.approx(
        100e6 / CORES["cortex-m4"].constants["conv_macs"].cycles
    )
    assert roof.bytes_per_s == 400e6
    assert roof.provenance == "modelled"


def test_constants_are_what_their_sources_give(published):
    for core, constants in refitted(published).items():
        for key, value in constants.items():
            assert CORES[core].constants[key].cycles == pytest.approx(value, rel=0.005), (core, key)


def test_errors_on_published_latencies_are_as_reported(published):
    rows = latency_rows(published)
    fitted = [abs(row["error_percent"]) for row in rows if row["fitted"]]
    fresh = {(row["core"], row["network"]): row["error_percent"] for row in rows
             if not row["fitted"]}  # fmt: skip
    assert max(fitted) < 15
    assert fresh["cortex-m4", "person"] == pytest.approx(-12.6, abs=0.5)
    assert fresh["cortex-m7", "cifar10"] == pytest.approx(17.7, abs=0.5)


def board_csv(folder, program, factors):
    """Write latencies of a board whose groups take ``factors`` times the model."""
    target = CortexM("cortex-m4")
    rows = ["network,latency_ms"]
    for i, net in enumerate(program):
        (folder / f"net{i}.tflite").write_bytes(tflite(net))
        latency = 0.0
        for work in work_of_file(tflite(net), "net"):
            group = "depthwise" if "depthwise_macs" in work.counts else "all"
            latency += factors[group] * work.cycles(target._constants) / 120e3
        rows.append(f"net{i}.tflite,{latency:.9f}")
    (folder / "board.csv").write_text("\n".join(rows) + "\n")
    return folder / "board.csv"


def mixed_nets():
    for width, depthwise in ((8, 0), (16, 1), (24, 3), (8, 5)):
        layers = [nn.Conv2d(3, width, 3, padding=1)]
        layers += [nn.Conv2d(width, width, 3, padding=1, groups=width)] * depthwise
        yield capture(nn.Sequential(*layers).eval(), torch.zeros(1, 3, 16, 16))


def test_a_board_is_recovered_from_its_measurements(tmp_path):
    nets = list(mixed_nets())
    file = board_csv(tmp_path, nets, {"all": 0.7, "depthwise": 0.4})
    target = create(f"cortex-m4:measurements={file}")
    assert target.board.error < 1e-6
    assert target.board.factors["depthwise"] == pytest.approx(0.4)
    assert target.board.factors["all"] == pytest.approx(0.7)
    last = float(file.read_text().splitlines()[-1].split(",")[1])
    assert target.cost(nets[-1]).total["latency_ms"] == pytest.approx(last)
    assert target.cost(nets[-1]).total.spread["latency_ms"] < 1e-5 * last
    assert "error=" in target.fingerprint
    assert target.fingerprint != create("cortex-m4").fingerprint


def test_three_rows_of_one_kind_give_one_factor(tmp_path):
    nets = [net for net, _ in zip(mixed_nets(), range(1))] * 3
    file = board_csv(tmp_path, nets, {"all": 0.5, "depthwise": 0.5})
    fit = fit_board(file, CortexM("cortex-m4")._constants, 120e6)
    assert fit.factors == {"all": pytest.approx(0.5)}


def test_networks_of_the_zoo_can_be_rows(tmp_path):
    (tmp_path / "b.csv").write_text(
        "network,latency_ms,input\n"
        "tiny_mobilenet_v2,50,1x3x32x32\n"
        'tiny_mobilenet_v2,20,"1,3,16,16"\ntiny_mobilenet_v2,9,1x3x8x8\n'
    )
    target = create(f"cortex-m4:measurements={tmp_path / 'b.csv'}")
    assert target.board.rows == 3
    assert 0 < target.board.error < 1


@pytest.mark.parametrize(("text", "message"), [
    ("network,latency_ms\na.tflite,1\nb.tflite,2\n", "2 measurements"),
    ("name,ms\na,1\nb,1\nc,1\n", "line 2"),
    ("network,latency_ms\na.tflite,1\nb.tflite,x\nc.tflite,1\n", "line 3"),
    ("network,latency_ms\na.tflite,1\nb.tflite,-1\nc.tflite,1\n", "line 3"),
    ("network,latency_ms\na.tflite,1\nb.tflite,1\nc.tflite,1\n", "cannot read"),
])  # fmt: skip
def test_wrong_measurements_are_told_with_their_line(tmp_path, text, message):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        create(f"cortex-m4:measurements={tmp_path / 'b.csv'}")


def test_wrong_clocks_are_told():
    for clock in ("0", "-5", "nan", "fast"):
        with pytest.raises(BadInput, match="not a positive number"):
            create(f"cortex-m4:clock_mhz={clock}")


def test_operators_in_float_are_refused():
    op = _Operator("y", "CONV_2D", ((1, 8, 8, 3), (4, 1, 1, 3)), (1, 8, 8, 4), 0, 1)
    with pytest.raises(UnsupportedOp, match="CONV_2D at y of net does not run in int8"):
        _work(op, "net")
    with pytest.raises(UnsupportedOp, match="cycles of LSTM at y of net are not modelled"):
        _work(replace(op, kind="LSTM"), "net")


def test_predictions_from_single_operators_are_exact(program):
    target = create("cortex-m55")
    guess = predict(program.workload, target, CostTable()).total
    whole = target.cost(program).total
    assert guess["latency_ms"] == pytest.approx(whole["latency_ms"])
    assert "peak_sram_bytes" not in guess
