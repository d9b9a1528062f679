import itertools

import numpy as np
import pytest
import torch

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph.channels import channel_groups
from chipfit.methods.auto import Auto
from chipfit.methods.auto_criteria import CRITERIA, Known, narrowed_alike, proposals, values_of
from chipfit.methods.auto_scores import DistanceJob, distances, interpolated, probed
from chipfit.methods.base import METHODS
from chipfit.methods.width_table import thinned_widths, width_table
from chipfit.rewrite.edits import edits_for
from chipfit.rewrite.slice import side_sizes, slice_channels
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.jobs import Bench
from chipfit.train.randomness import generator

QUICK = {
    "levels": 2, "points": 2, "widths": 3, "score_images": 64, "importance_batches": 1,
    "rounds": (2, 2), "val_images": 50,
}  # fmt: skip


def test_widths_between_measured_ones_lose_what_their_importance_says():
    importance = [0.0, 1.0, 1.0, 2.0]  # ascending, of four channels
    found = interpolated([1, 2, 3, 4], {1: 4.0}, importance)
    # Removing channels of importance 0, 1, 1: cumulated 0, 1, 2 of 2.
    assert found == pytest.approx([4.0, 2.0, 0.0, 0.0], abs=1e-6)
    measured = interpolated([1, 2, 3, 4], {1: 1.0, 2: 3.0}, importance)
    assert measured == pytest.approx([3.0, 3.0, 0.0, 0.0], abs=1e-6)  # never falls with narrowing
    even = interpolated([1, 2, 3], {1: 2.0}, [0.0, 0.0, 0.0])
    assert even == pytest.approx([2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("options", "points", "expected"),
    [((8, 16, 24, 32), 2, [8, 24]), ((8, 16), 4, [8]), ((8, 16, 24, 32), 1, [8]), ((8,), 3, [])],
)
def test_the_narrowest_width_is_always_measured(options, points, expected):
    assert probed(options, points) == expected


def test_distance_is_that_of_the_sliced_network(digits):
    net, task = digits
    groups = [g for g in channel_groups(net, task.example_input()) if not g.frozen]
    edits = edits_for(groups, {groups[0].name: range(groups[0].channels // 2)}, side_sizes(net))
    job = DistanceJob(((), tuple(edits)), 128)
    same, far = distances(Bench(net, task), job)
    batches = task.calibration_batches(2, 64)
    narrow, whole = slice_channels(net, edits), slice_channels(net, [])
    for one in (narrow, whole):
        recalibrate_batchnorm(one, batches)
        one.eval()
    with torch.no_grad():
        wanted = [
            torch.nn.functional.kl_div(
                narrow(b).log_softmax(1), whole(b).log_softmax(1), reduction="batchmean",
                log_target=True,
            ).item()
            for b in batches
        ]  # fmt: skip
    assert far == pytest.approx(np.mean(wanted), rel=1e-4)
    assert same == 0 < far


@pytest.fixture
def known(problem):
    """A width table of the usual network, and what criteria look at."""
    found, _ = problem("analytic", {"macs": 0.5})
    groups = channel_groups(found.net, found.example)
    table = width_table(found, groups, thinned_widths(groups, 8, 3))
    drawn = generator(0, "importance")
    importance = {g.name: torch.rand(g.channels, generator=drawn) for g in table.groups}
    lost = {c.name: np.linspace(1.0, 0.0, len(c.options)) for c in table.space}
    return found, table, Known(importance, {k: v**2 for k, v in importance.items()}, lost)


def test_all_groups_alike_is_the_widest_such_network_within_the_budget(known):
    found, table, _ = known
    limits = dict(found.budget.limits)
    row = narrowed_alike(table, limits)
    assert table.of("macs")(np.array([row]))[0] <= limits["macs"]
    assert narrowed_alike(table, {"macs": 1e12}) == table.full
    assert narrowed_alike(table, {"macs": 1.0}) is None


def test_values_of_widths_by_every_criterion(known):
    _, table, known = known
    choice = table.space.choices[0]
    ranked = sorted(known.taylor[choice.name].double().tolist(), reverse=True)
    for i, width in enumerate(choice.options):
        assert values_of("taylor", table, known)[0][i] == pytest.approx(sum(ranked[:width]))
        assert values_of("capacity", table, known)[0][i] == pytest.approx(
            np.log(width / choice.options[-1])
        )
        assert values_of("measured", table, known)[0][i] == -known.lost[choice.name][i]
    whole = [values[-1] for values in values_of("magnitude", table, known)]
    assert whole == pytest.approx([c.options[-1] for c in table.space])  # the mean counts 1


def test_proposals_are_the_best_within_the_budget(known):
    found, table, known = known
    limits = dict(found.budget.limits)
    rows = proposals(CRITERIA, table, known, limits)
    assert "alike" in rows
    assert len(set(rows.values())) == len(rows)
    codes = np.array(list(itertools.product(*(range(len(c.options)) for c in table.space))))
    inside = codes[table.of("macs")(codes) <= limits["macs"]]
    for name, row in rows.items():
        assert table.of("macs")(np.array([row]))[0] <= limits["macs"]
        if name != "alike":
            values = values_of(name, table, known)
            worth = sum(v[inside[:, g]] for g, v in enumerate(values))
            mine = sum(v[row[g]] for g, v in enumerate(values))
            reach = worth.max() - sum(v[-1] for v in values)
            assert mine - sum(v[-1] for v in values) >= 1.03 * reach - 1e-9


def test_the_better_half_goes_on_from_round_to_round(problem):
    found, run = problem("analytic", {"macs": 0.5}, **{**QUICK, "rounds": (1, 1, 1)})
    start = found.original_cost["macs"]
    members = list(METHODS.get("auto").value().search(found, run))
    limits = [run.recall(f"auto/step/{m.step}")["constraint"]["macs"] for m in members]
    assert limits == pytest.approx([0.75 * start, 0.5 * start])
    for member, limit in zip(members, limits):
        assert member.predicted["macs"] <= limit
        rounds = [
            {c for c in CRITERIA if run.recall(f"auto/round-{n}/{member.step}/{c}")}
            for n in (1, 2, 3)
        ]
        sizes = [len(own) for own in rounds]
        assert rounds[2] <= rounds[1] <= rounds[0]
        assert sizes[1] == -(-sizes[0] // 2)
        assert sizes[2] == -(-sizes[1] // 2)
        first = {
            c: run.recall(f"auto/round-1/{member.step}/{c}")["val_accuracy"] for c in rounds[0]
        }
        assert min(first[c] for c in rounds[1]) >= max(
            (first[c] for c in rounds[0] - rounds[1]), default=0.0
        )
    saved = sum(change["macs_saved"] for change in members[-1].changes)
    assert start - saved == pytest.approx(members[-1].predicted["macs"])


def test_what_is_out_of_reach_or_range_is_refused(problem):
    found, _ = problem("analytic", {"macs": 0.0001}, **QUICK)
    with pytest.raises(InfeasibleBudget, match="narrowest"):
        Auto().check(found)
    wrong, _ = problem("analytic", {"macs": 0.5}, **{**QUICK, "criteria": ("luck",)})
    with pytest.raises(BadInput, match="criteria"):
        Auto().check(wrong)
