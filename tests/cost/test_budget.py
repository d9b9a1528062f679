# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest

from chipfit.cost import Budget, Cost
from chipfit.errors import BadInput


def test_parse_one_and_several():
    assert dict(Budget.parse("latency_ms=8").limits) == {"latency_ms": 8.0}
    both = Budget.parse("latency_ms=8, macs=1.5m")
    assert dict(both.limits) == {"latency_ms": 8.0, "macs": 1.5e6}
    assert Budget.parse(["latency_ms=8", "macs=1.5m"]) == both
    assert Budget.parse({"latency_ms": 8, "macs": "1.5M"}) == both
    assert Budget.parse(both) is both


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("peak_sram_bytes=256k", "peak_sram_bytes", 256 * 1024),
        ("flash_bytes=2M", "flash_bytes", 2 * 1024**2),
        ("cycles=3g", "cycles", 3e9),
        ("params=10k", "params", 10_000),
        ("latency_ms=1e-1", "latency_ms", 0.1),
        ("latency_ms=.5", "latency_ms", 0.5),
    ],
)
def test_suffixes(text, key, value):
    assert Budget.parse(text).limits[key] == value


def test_percentages_resolve_against_a_cost():
    budget = Budget.parse("latency_ms=50%,peak_sram_bytes=256k")
    assert not budget.resolved
    assert budget.keys == ("latency_ms", "peak_sram_bytes")
    original = Cost({"latency_ms": 3.0, "peak_sram_bytes": 1}, "compiled")
    resolved = budget.resolve(original)
    assert resolved.resolved
    assert dict(resolved.limits) == {"latency_ms": 1.5, "peak_sram_bytes": 262144.0}


def test_met_is_inclusive_and_needs_every_bound():
    budget = Budget({"latency_ms": 2.0, "macs": 10})
    assert budget.met(Cost({"latency_ms": 2.0, "macs": 10}, "compiled"))
    over = Cost({"latency_ms": 3.0, "macs": 10}, "compiled")
    assert not budget.met(over)
    assert budget.excess(over) == {"latency_ms": 1.5}


def test_unresolved_or_unknown_is_an_error():
    cost = Cost({"macs": 5}, "modelled")
    with pytest.raises(BadInput, match="percentage"):
        Budget.parse("macs=50%").met(cost)
    with pytest.raises(BadInput, match="latency_ms, which this target does not report"):
        Budget.parse("latency_ms=1").met(cost)
    with pytest.raises(BadInput, match="does not report"):
        Budget.parse("latency_ms=50%").resolve(cost)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency=8", "did you mean latency_ms"),
        ("peak_sram_byte=8", "did you mean peak_sram_bytes"),
        ("latency_ms", "write it as"),
        ("latency_ms=fast", "cannot read"),
        ("latency_ms=8s", "unknown suffix 's'"),
        ("latency_ms=0", "not a positive"),
        ("latency_ms=-1", "not a positive"),
        ("latency_ms=1e999", "not a positive"),
        ("latency_ms=1,latency_ms=50%", "twice"),
        ("", "empty"),
    ],
)
def test_bad_text_names_the_fix(text, message):
    with pytest.raises(BadInput, match=message):
        Budget.parse(text)


def test_round_trips_and_text():
    budget = Budget.parse("latency_ms=8,macs=50%")
    assert Budget.from_json(budget.to_json()) == budget
    assert pickle.loads(pickle.dumps(budget)) == budget
    assert Budget.parse(str(budget)) == budget
    with pytest.raises(TypeError):
        budget.limits["macs"] = 1
