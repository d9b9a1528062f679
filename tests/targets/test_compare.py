# SPDX-License-Identifier: Apache-2.0
import pytest

from chipfit.errors import BadInput, UnsupportedOp
from chipfit.graph import Node, Workload, make_op
from chipfit.targets import create
from chipfit.targets.compare import Comparison, compare, compare_runs
from chipfit.targets.timing import Protocol, by_clock

pytest.importorskip("onnxruntime")

QUICK = Protocol(min_rounds=3, max_rounds=6, sessions=1, warm_up=2)


class Machine:
    """A clock that only runs advance, with instances that are quicker or slower by ``bias``."""

    def __init__(self, biases=(0.0,)):
        self.now, self.made, self.biases = 0.0, 0, biases

    def maker(self, milliseconds):
        def make():
            bias = self.biases[self.made % len(self.biases)]
            self.made += 1

            def run():
                self.now += milliseconds / 1e3 * (1 + bias)

            return run

        return make

    def compare(self, *milliseconds):
        makers = [self.maker(ms) for ms in milliseconds]
        return compare_runs(makers, Protocol(), by_clock(lambda: self.now))


def test_ratios_are_to_the_first_network():
    same, slower, faster = Machine().compare(4.0, 6.0, 1.0)
    assert (same.ratio, slower.ratio, faster.ratio) == pytest.approx((1.0, 1.5, 0.25))
    assert same.noise == pytest.approx(0.0, abs=1e-9)
    assert [same.verdict, slower.verdict, faster.verdict] == [
        "indistinguishable", "slower", "faster",
    ]  # fmt: skip


def test_instances_that_differ_are_the_noise():
    # Three instances a session: the first network, the other one, and the reference.
    biased = Machine(biases=(0.10, 0.0, 0.0, 0.0, 0.0, 0.10, 0.0, 0.0, 0.0))
    again, other = biased.compare(4.0, 4.2)
    assert again.noise >= 0.08
    assert other.ratio == pytest.approx(1.05, abs=0.06)
    assert other.verdict == "indistinguishable"


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (Comparison(0.9, 0.88, 0.93, 0.01), "faster"),
        (Comparison(0.9, 0.88, 0.93, 0.11), "indistinguishable"),  # less than the noise
        (Comparison(0.9, 0.88, 1.01, 0.01), "indistinguishable"),  # its interval covers 1
        (Comparison(1.015, 1.01, 1.017, 0.001), "indistinguishable"),  # less than 2 %
        (Comparison(1.015, 1.015, 1.015), "slower"),  # exact: nothing was measured
        (Comparison(1.0, 1.0, 1.0), "indistinguishable"),
        (Comparison(1.3, 1.2, 1.4, 0.05), "slower"),
    ],
)
def test_verdicts(comparison, verdict):
    assert comparison.verdict == verdict
    assert comparison.to_json()["verdict"] == verdict


def test_measured_networks_are_told_apart(bottlenecks, tmp_path):
    target = create("onnxruntime-cpu")
    target.protocol = QUICK
    small, large = bottlenecks([16], 16), bottlenecks([256] * 3, 32)
    first, other = compare(target, [small, large])
    assert first.low <= first.ratio <= first.high
    assert first.noise > 0
    assert other.ratio > 3  # 190 times the MACs
    assert other.verdict == "slower"


def test_compiled_costs_compare_exactly(bottlenecks):
    pytest.importorskip("ethosu")
    target = create("ethos-u55-128")
    small, large = bottlenecks([16]), bottlenecks([64])
    costs = [target.cost(w).total["latency_ms"] for w in (small, large)]
    first, other = compare(target, [small, large])
    assert (first.ratio, first.noise, first.verdict) == (1.0, 0.0, "indistinguishable")
    assert other.ratio == other.low == other.high == pytest.approx(costs[1] / costs[0])
    assert other.verdict == "slower"


def test_what_cannot_be_compared(bottlenecks):
    with pytest.raises(BadInput, match="nothing to compare"):
        compare(create("analytic"), [])
    with pytest.raises(BadInput, match="no latency"):
        compare(create("analytic"), [bottlenecks([16])])
    shape = (1, 8, 4, 4)
    fft = Node("fft", make_op("unsupported", [shape], shape, aten="aten::fft"), ("x",), "y")
    strange = Workload((fft,), ("x",), ("y",), {"x": shape, "y": shape})
    with pytest.raises(UnsupportedOp, match="fft"):
        compare(create("onnxruntime-cpu"), [bottlenecks([16]), strange])
