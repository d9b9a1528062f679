from dataclasses import replace

import pytest

from chipfit.errors import BadInput
from chipfit.methods.base import METHODS
from chipfit.runs.candidate import ORIGINAL
from chipfit.space.blocks import space_of

QUICK = {"search_steps": 6, "batch_size": 16, "val_images": 50, "proposals": 2}


@pytest.fixture
def asked(problem, toy_net):
    def build(fraction=0.9, **options):
        found, run = problem("analytic", {"macs": fraction})
        net = toy_net(input_shape=found.task.input_shape).eval()
        return replace(found, net=net, options={**QUICK, **options}), run

    return build


def test_a_networks_own_space_is_searched_and_what_is_derived_is_of_it(asked):
    problem, run = asked(levels=2)
    members = list(METHODS.get("fbnet").value().search(problem, run))
    space = space_of(problem.net)
    assert members[-1].predicted["macs"] <= problem.budget.limits["macs"]
    for member in members:
        assert set(member.architecture) == {c.name for c in space}
        assert member.edits == space.edits(member.architecture)
        assert member.parent == ORIGINAL and member.fresh
        saved = sum(change["macs_saved"] for change in member.changes)
        assert saved == problem.original.cost["macs"] - member.predicted["macs"]
    events = run.journal.events
    steps = [e["step"] for e in events if e["event"] == "search"]
    assert steps == sorted(set(steps)) and steps[-1] == 6
    last = [e for e in events if e["event"] == "search"][-1]
    assert set(last["probabilities"]) == {c.name for c in space}
    assert "val_accuracy" in last and last["expected"].keys() == {"macs"}


def test_inherited_weights_are_those_of_the_supernet(asked):
    fresh, run = asked()
    drawn = next(iter(METHODS.get("fbnet").value().search(fresh, run)))
    kept, other = asked(retrain=False)
    inherited = next(iter(METHODS.get("fbnet").value().search(kept, other)))
    assert inherited.architecture == drawn.architecture
    assert inherited.metrics == drawn.metrics
    assert not inherited.fresh
    net = inherited.build(kept.net, other.folder)
    value = kept.task.evaluate(net, "val", limit=50)["accuracy"]
    assert value == pytest.approx(inherited.metrics["val_accuracy"])


def test_settings_out_of_range_are_refused(asked):
    for wrong in ({"levels": 0}, {"floor": 2.0}, {"search_epochs": 0.0}, {"warmup": 1.0}):
        problem, run = asked(**wrong)
        with pytest.raises(BadInput):
            list(METHODS.get("fbnet").value().search(problem, run))
    problem, run = asked(penalty="hope")
    with pytest.raises(BadInput, match="penalty"):
        list(METHODS.get("fbnet").value().search(problem, run))
