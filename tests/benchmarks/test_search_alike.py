from types import SimpleNamespace

import pytest

from benchmarks.search_alike import given_id
from benchmarks.search_alike_tables import RANDOM, Found, elsewhere, rows_of
from chipfit.rewrite.swap import Swap
from chipfit.targets import create


def found(name, ms, cpu_s=0.0, held=0):
    return Found((Swap("stem", "skip", name, name),), ms, cpu_s, held)


def result(test, int8_test):
    return {"test": test, "int8_test": int8_test, "macs": 2_000_000}


@pytest.fixture
def entries():
    drawn, other, best = found(1, 0.9), found(2, 0.95), found(3, 0.8, 7.0, 3_000_000)
    return {
        RANDOM: [(drawn, 0, result(0.5, 0.4)), (other, 1, result(0.7, 0.6))],
        "fbnet": [(best, 0, result(0.65, 0.55)), (best, 1, result(0.75, 0.7))],
    }


def latencies(entries, *targets):
    networks = {f.digest: f for own in entries.values() for f, _, _ in own}
    return {
        (digest, target.name): (i + 1) * f.predicted_ms
        for digest, f in networks.items()
        for i, target in enumerate(targets)
    }


def test_a_search_is_compared_with_every_random_network(entries):
    u55, cpu = create("ethos-u55-128"), create("onnxruntime-cpu")
    drawn, own = rows_of(u55, 1.0, entries, latencies(entries, u55))
    assert (drawn["method"], drawn["networks"], own["networks"]) == (RANDOM, 2, 1)
    assert own["points above random"] == pytest.approx((55 + 70) / 2 - 50)
    assert own["beats of random %"] == 75.0  # 55 beats one of two, 70 both
    assert own["held MB"] == 3
    assert own["x budget, predicted"]["median"] == own["compiled ms"]["median"] == 0.8
    assert "int8 test %" in own
    _, own = rows_of(cpu, 1.0, entries, latencies(entries, cpu))
    assert own["points above random"] == pytest.approx((65 + 75) / 2 - 60)
    assert "measured ms" in own


def test_networks_are_run_on_the_other_targets_too(entries):
    targets = [create("ethos-u55-128"), create("onnxruntime-cpu")]
    rows = elsewhere(targets, [entries, entries], latencies(entries, *targets))
    assert [(r["method"], r["found for"]) for r in rows[2:]] == [
        ("fbnet", "ethos-u55-128"), ("fbnet", "onnxruntime-cpu"),
    ]  # fmt: skip
    assert rows[2]["ms on ethos-u55-128"]["median"] == 0.8
    assert rows[2]["ms on onnxruntime-cpu"]["median"] == 1.6


def test_what_a_search_depends_on_names_its_folder():
    given = SimpleNamespace(
        net="a", search_steps=1, search_batch=2, options={"fbnet": {"every": 2}}
    )
    same = SimpleNamespace(**vars(given) | {"steps": 5, "options": {"fbnet": {"every": 2}, "x": 1}})
    assert given_id(given, "fbnet") == given_id(same, "fbnet") != given_id(given, "darts")
    assert found(1, 0.5).digest == found(1, 0.7).digest != found(2, 0.5).digest
