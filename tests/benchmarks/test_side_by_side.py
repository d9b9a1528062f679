import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import contest_search
from benchmarks.contenders import BASELINES, CONTENDERS, LANA_BATCH, options_of
from benchmarks.contest import Contest, Opponent
from benchmarks.contest_tables import Held, cost_for, equal_accuracy, equal_latency, summary
from benchmarks.counting import Count, CountingTask, InProcessPool
from benchmarks.narrowing import IMPORTANCES, LibraryPruning, loss_gradients
from benchmarks.resnet8 import network
from benchmarks.run import QUICK
from benchmarks.side_by_side import main
from chipfit.errors import BadInput
from chipfit.files import read_state
from chipfit.graph import trace
from chipfit.supernet.blockwise_score import held_out_batches
from chipfit.tasks import load_task
from chipfit.train.batches import endless_batches
from chipfit.train.jobs import Bench, TuneJob, tune
from chipfit.train.loop import fit_model
from chipfit.train.recovery import short_recovery
from chipfit.workers import WorkerPool


@pytest.fixture(scope="module")
def task():
    return load_task("digits")


@pytest.fixture(scope="module")
def net(task):
    return network("tiny_mobilenet_v2", task).eval()


def job(folder, name, before=None, steps=2):
    recipe = short_recovery(load_task("digits").recipe, steps)
    return TuneJob((), before, (), folder / f"{name}.safetensors", recipe, 3, images=50)


def test_the_cost_of_an_accuracy_is_read_off_straight_lines():
    curve = [(4.0, 0.9), (1.0, 0.5), (2.0, 0.7)]
    assert cost_for(curve, 0.6) == (pytest.approx(1.5), "")
    assert cost_for(curve, 0.75) == (pytest.approx(2.5), "")
    assert cost_for(curve, 0.7) == (pytest.approx(2.0), "")
    assert cost_for(curve, 0.5) == (1.0, "")
    assert cost_for(curve, 0.4) == (1.0, "<")
    assert cost_for(curve, 0.95) == (4.0, ">")
    # The cheapest of several places counts.
    assert cost_for([(1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (4.0, 0.8)], 0.65)[0] == pytest.approx(
        1.75
    )


def result(cost, accuracy, used=100):
    return {
        "cost": cost, "test": accuracy + 0.01, "int8_test": accuracy, "how": "narrow",
        "images_weights": used, "images_all": 2 * used, "search_cpu_s": 1.0, "images_forward": 0, "tune_cpu_s": 2.0,
        "price_cpu_s": 0.0,
    }  # fmt: skip


@pytest.fixture
def held():
    found = {
        (0.7, "auto", 0): result(6.8, 0.80), (0.7, "auto", 1): result(7.0, 0.84),
        (0.7, "auto", 2): result(7.2, 0.82), (0.5, "auto", 0): result(5.0, 0.70),
        (0.7, "tp-a", 0): result(7.0, 0.78), (0.5, "tp-a", 0): result(5.0, 0.66),
        (0.7, "tp-b", 0): result(7.0, 0.74), (0.5, "tp-b", 0): result(5.0, 0.72),
        (0.7, "uniform", 0): result(7.0, 0.85), (0.7, "ran-e", 0): {"refused": "no such block"},
    }  # fmt: skip
    return Held("net", "device", {"cost": 10.0, "test": 0.91, "int8_test": 0.9}, found)


def test_rows_at_equal_latency(held):
    auto, first, _, uniform, refused = equal_latency(held, 0.7)
    assert auto["x budget"] == {"median": 1.0, "min": 6.8 / 7, "max": 7.2 / 7, "n": 3}
    assert auto["int8 test %"]["median"] == 82 and auto["int8 - auto's"] == 0
    assert first["int8 - auto's"] == pytest.approx(-4) and uniform["int8 - auto's"] > 0
    assert first["images in all"]["median"] == 200
    assert refused["network"] == "does not apply: no such block" and refused["x budget"] is None
    assert [row["contender"] for row in equal_latency(held, 0.5)] == ["auto", "tp-a", "tp-b"]


def test_the_best_of_the_library_is_the_cheapest_at_autos_accuracy(held):
    at_70, at_50 = equal_accuracy(held, "int8_test")
    # 0.82: a reaches it a third of the way from 0.78 at 7 to 0.9 at 10, b half the way from 0.74.
    assert at_70["fastest of Torch-Pruning"] == "tp-a" and at_70["its cost"] == "8"
    assert at_70["x auto's"] == "1.143"
    # 0.78 is two thirds of the way between auto's 0.70 at 5 and 0.82 at 7.
    assert (at_70["most accurate there"], at_70["its int8 %"]) == ("tp-a", 78)
    assert (at_70["auto's for that"], at_70["x that"]) == ("6.333", "1.105")
    # 0.72 of b at 5 is more than auto has there.
    assert at_50["most accurate there"] == "tp-b"
    assert float(at_50["x that"]) == pytest.approx(15 / 16, abs=1e-3)
    # 0.70: the fastest network of b is better than that already.
    assert at_50["fastest of Torch-Pruning"] == "tp-b" and at_50["x auto's"] == "<1.000"

    assert (
        equal_accuracy(Held("n", "t", held.original, {(0.7, "auto", 0): result(7.0, 0.8)}), "test")
        == []
    )
    better = {**held.results, (0.5, "auto", 0): result(5.0, 0.95)}
    _, row = equal_accuracy(Held("n", "t", held.original, better), "int8_test")
    assert (row["fastest of Torch-Pruning"], row["x auto's"]) == ("none as accurate", ">2.000")
    assert row["x that"] == ">1.000"  # auto's cheapest network is more accurate


def test_the_summary_counts_and_names_what_auto_loses(held):
    (row,) = summary([held])
    assert row["budgets"] == 2 and row["auto is the most accurate"] == 0
    assert row["x at auto's accuracy"] == "1.143, <1.000"
    assert row["x at Torch-Pruning's"].startswith("1.105, 0.93")
    assert row["where it is not"] == "-3.00 at 0.7 to uniform; -2.00 at 0.5 to tp-b"
    only = {k: v for k, v in held.results.items() if k[1] in ("auto", "tp-a")}
    (row,) = summary([Held("n", "t", held.original, only)])
    assert row["auto is the most accurate"] == 2 and row["lead in points"]["min"] == pytest.approx(
        4
    )


def test_a_counting_task_counts_what_is_read_and_changes_nothing(task, net):
    count = Count()
    counting = CountingTask(task, count)
    recipe = task.recipe.replace(steps=3, batch_size=16)
    done = fit_model(network("tiny_mobilenet_v2", task), counting, recipe)
    assert done.images == count.images == 48
    list(islice(counting.train_batches(16, 0, 0), 2))
    assert count.images == 80
    plain, counted = task.halves(5)[1], counting.halves(5)[1]
    for a, b in zip(held_out_batches(plain, 64), held_out_batches(counted, 64), strict=True):
        assert torch.equal(a.inputs, b.inputs)
    assert count.images == 80 + sum(len(b.inputs) for b in held_out_batches(plain, 64))
    before = count.images
    stream = endless_batches(counting, 32, 0, 0)
    for _ in range(5):
        next(stream)
    assert count.images == before + 5 * 32
    assert count.forward == 0
    counting.calibration_batches(2, 8)
    every = Count(all=True)
    CountingTask(task, every).calibration_batches(2, 8)
    assert every.forward == every.images == 16
    assert count.forward == 16 and count.images == before + 5 * 32


def test_the_pool_in_this_process_does_what_worker_processes_do(task, net, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    bench = Bench(net, task)
    found = list(InProcessPool(bench).map(tune, [job(here, "a"), job(here, "b", steps=3)]))
    with WorkerPool(1, bench) as pool:
        wanted = sorted(pool.map(tune, [job(there, "a"), job(there, "b", steps=3)]))
    assert found == wanted and [i for i, _ in found] == [0, 1]
    for name in ("a", "b"):
        mine, other = (read_state(f / f"{name}.safetensors") for f in (here, there))
        assert all(torch.equal(mine[key], other[key]) for key in other)
    with pytest.raises(BadInput, match="wrong"), InProcessPool(bench) as pool:
        list(pool.map(lambda bench, item: (_ for _ in ()).throw(BadInput(item)), ["wrong"]))


def test_images_behind_weights_are_those_of_their_lineage_and_of_all_that_is_shared(
    task, net, tmp_path
):
    count = Count()
    counting = CountingTask(task, count)
    pool = InProcessPool(Bench(net, counting), count)
    batch = task.recipe.batch_size
    shared = 0
    for found in islice(counting.train_batches(batch, 0, 0), 1):  # importance, say
        shared += len(found.inputs)
    list(pool.map(tune, [job(tmp_path, "a", steps=1), job(tmp_path, "b", steps=2)]))
    moved = tmp_path / "kept.safetensors"
    (tmp_path / "b.safetensors").replace(moved)
    list(pool.map(tune, [job(tmp_path, "c", before=moved, steps=4)]))
    assert count.images == shared + 7 * batch
    assert count.behind(tmp_path / "a.safetensors") == shared + batch
    assert count.behind(moved) == shared + 2 * batch
    assert count.behind(tmp_path / "c.safetensors") == shared + 6 * batch
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"made outside of the pool")
    assert count.behind(other) == count.images


def test_options_leave_about_half_of_the_images_and_unknown_ones_are_refused():
    images, batch = 45000, 128
    steps = {name: options_of(name, images, batch, {}) for name in CONTENDERS}
    assert all(steps[name] == {} for name in BASELINES)
    assert steps["smcp"]["search_steps"] * batch == pytest.approx(images / 2, rel=0.01)
    lineage = steps["netadapt"]["steps"] * steps["netadapt"]["short_steps"] * batch
    assert lineage == pytest.approx(images / 3, rel=0.1)
    lana = steps["lana"]
    used = lana["distil_steps"] * LANA_BATCH + lana["solutions"] * lana["short_steps"] * batch
    assert used == pytest.approx(0.45 * images, rel=0.05)
    assert all(steps[name].get("levels", 1) == 1 for name in CONTENDERS)
    assert options_of("smcp", images, batch, {"every": 7})["every"] == 7
    with pytest.raises(BadInput, match="nonsense"):
        options_of("smcp", images, batch, {"nonsense": 7})
    with pytest.raises(BadInput, match="uniform"):
        options_of("uniform", images, batch, {"every": 7})


def test_importances_of_the_library_prune_differently(task):
    trained = network("resnet8", task)
    fit_model(trained, task, task.recipe.replace(steps=8, batch_size=32))
    trained.zero_grad()
    gradients = loss_gradients(trained, task, 2, 0)
    assert all(p.grad is None for p in trained.parameters())
    found = {}
    for name in IMPORTANCES:
        ladder = LibraryPruning(trained, task.example_input(), 4, importance=name,
                                gradients=gradients)  # fmt: skip
        pruned = ladder[len(ladder) // 2]
        assert all(p.grad is None for p in pruned.parameters())
        assert pruned(task.example_input()).shape == (1, 10)
        found[name] = {n: p.detach() for n, p in pruned.named_parameters()}
    shapes = {name: [tuple(v.shape) for v in own.values()] for name, own in found.items()}
    assert len({str(own) for own in shapes.values()}) > 1
    assert trace(network("resnet8", load_task("digits")), task.example_input()).macs > 0


def test_the_library_prunes_every_layer_by_the_same_ratio_where_told(task):
    net, example = network("resnet8", task).eval(), task.example_input()
    ladder = LibraryPruning(net, example, 1, everywhere=True)
    rung = len(ladder) // 2 - 1
    assert ladder.ratio(rung) == 0.5
    pruned = ladder[rung]
    widths = {n: m.out_channels for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert {n: pruned.get_submodule(n).out_channels for n in widths} == {
        n: width // 2 for n, width in widths.items()
    }
    assert ladder.describe(rung).endswith("in every layer")


def test_pruning_every_layer_ends_at_the_narrowest_widths_and_never_widens(net, task):
    ladder = LibraryPruning(net, task.example_input(), 8, everywhere=True)
    rungs = [ladder[i] for i in range(0, len(ladder), 40)]
    macs = [trace(rung, task.example_input()).macs for rung in rungs]
    assert macs == sorted(macs) and macs[0] < 0.1 * macs[-1]
    assert {m.out_channels for m in rungs[0].modules() if isinstance(m, nn.Conv2d)} == {8}


def test_the_quick_benchmark_runs_and_continues(tmp_path):
    arguments = [*QUICK["side_by_side"][:-2], "--store", str(tmp_path / "store")]
    tables = []
    for _ in range(2):
        assert main([*arguments, "--out", str(tmp_path)]) == 0
        tables.append(json.loads((tmp_path / "side_by_side.json").read_text())["tables"])
    assert tables[0] == tables[1]  # times included: nothing was held twice
    rows = {row["contender"]: row for row in tables[0][0]["rows"]}
    assert list(rows) == ["smcp", "netadapt", "tp-taylor"]
    assert all(row["x budget"]["max"] <= 1 for row in rows.values())
    assert rows["smcp"]["images in all"]["median"] == 256
    assert (
        rows["netadapt"]["images in all"]["median"]
        > rows["netadapt"]["images of the weights"]["median"]
    )


def test_a_search_is_repeated_with_a_lower_bound_until_its_network_measures_within(
    tmp_path, monkeypatch
):
    bounds, measured = [], iter([1.25, 1.05, 0.99])

    def search(task, net, job, seed, folder):
        folder.mkdir()
        bounds.append(job.bound or job.limit)
        return {"id": f"auto-{len(bounds):02}"}

    found = SimpleNamespace(build=lambda net, folder: "the network", candidate=lambda name: found)
    monkeypatch.setattr(contest_search, "_search", search)
    monkeypatch.setattr(contest_search, "_over", lambda *_: next(measured))
    monkeypatch.setattr(contest_search.Run, "read", lambda folder: found)
    opponent = Opponent("n", Path("w"), {}, "t", {"latency_ms": 4.0}, "measured", "latency_ms", 1,
                        Path("t"))  # fmt: skip
    job = Contest(opponent, 0.5, "auto", 0, 1, {}, False, False, tmp_path)
    facts, net = contest_search.searched(None, None, job)
    assert (facts["id"], net) == ("auto-03", "the network")
    assert bounds == pytest.approx([2.0, 2.0 / 1.25, 2.0 / 1.25 / 1.05])
    assert contest_search.searched(None, None, job)[0] == facts  # recalled, not searched
    assert len(bounds) == 3
