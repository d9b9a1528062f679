import json

import pytest
from click.testing import CliRunner

import chipfit as cf
from chipfit import nets
from chipfit.cli.main import cli
from chipfit.cost.model import ERROR
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.flow.scale import scale
from chipfit.graph import trace
from chipfit.scores.nn_mass import nn_mass_convnext

NET = "convnext_tiny:widths=8-16-24-32,depths=2-2-3-2"
SETTINGS = {
    "input_shape": (1, 3, 32, 32), "bounds": {"step": 8, "width_floor": 1.0, "width_cap": 2.0},
}  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    return {**SETTINGS, "table": tmp_path / "costs.sqlite"}


def rebuilt(member):
    net = nets.create(member.build, input_shape=(1, 3, 32, 32))
    assert (tuple(net.widths), tuple(net.depths)) == (member.widths, member.depths)
    return trace(net, net.head.weight.new_zeros(1, 3, 32, 32))


def test_equal_mass_costs_less_and_every_figure_is_that_of_the_network(settings):
    found = scale(NET, "analytic", mass=1.3 * nn_mass_convnext((8, 16, 24, 32), (2, 2, 3, 2)),
                  **settings)  # fmt: skip
    original, *family = found.family
    assert original.gain == 1.0 and original.nn_mass == 368
    assert [m.share for m in family] == [0.8, 1.0, 1.25]
    for member in family:
        workload = rebuilt(member)
        assert member.nn_mass == nn_mass_convnext(member.widths, member.depths)
        assert member.nn_mass >= member.share * 1.3 * 368
        assert member.non_linear_units >= member.share * 1.3 * original.non_linear_units
        assert member.cost["macs"] == member.predicted["macs"] == workload.macs
        assert member.gain == pytest.approx(original.cost["macs"] / workload.macs)


def test_the_search_costs_no_more_than_the_papers_rule(settings):
    macs = {}
    for rule in ("search", "uniform"):
        found = scale(NET, "analytic", mass=600, rule=rule, family=False, **settings)
        macs[rule] = found.family[1].cost["macs"]
    assert macs["search"] <= macs["uniform"]


def test_a_budget_gets_the_heaviest_network_within_it(settings):
    found = scale(NET, "analytic", budget="macs=130%", **settings)
    limit = 1.3 * found.family[0].cost["macs"]
    masses = [m.nn_mass for m in found.family[1:]]
    assert masses == sorted(masses)
    for member in found.family[1:]:
        assert member.cost["macs"] <= member.share * limit


def test_what_cannot_be_is_explained(settings):
    with pytest.raises(InfeasibleBudget, match="the most nn_mass"):
        scale(NET, "analytic", mass=1e6, **settings)
    with pytest.raises(BadInput, match="cannot be scaled"):
        scale("repvgg_a0", "analytic", **{**settings, "bounds": None})
    with pytest.raises(BadInput, match="one of"):
        scale(NET, "analytic", mass=1.0, budget="macs=50%", **settings)
    with pytest.raises(BadInput, match="rule"):
        scale(NET, "analytic", rule="best", **settings)
    with pytest.raises(BadInput, match="range"):
        scale(NET, "analytic", **{**settings, "bounds": {"width_floor": 2.0}})


def test_the_command_prints_one_document(tmp_path):
    arguments = ["scale", NET, "--target", "analytic", "--input", "1,3,32,32", "--step", "8",
                 "--width-floor", "1", "--one", "--mass", "500", "--finalists", "0",
                 "--table", str(tmp_path / "costs.sqlite")]  # fmt: skip
    found = CliRunner().invoke(cli, [*arguments, "--json"])
    assert found.exit_code == 0
    family = json.loads(found.stdout)["family"]
    assert len(family) == 2 and family[1]["cost"] == {} and family[1]["nn_mass"] >= 500
    text = CliRunner().invoke(cli, arguments).stdout
    assert family[1]["build"] in text.replace("\n", "")


def test_compiled_figures_are_those_of_the_whole_network(tmp_path):
    target, place = cf.target("ethos-u55-128"), tmp_path / "costs.sqlite"
    with CostTable(place) as table:
        table.set_facts(target.fingerprint, {ERROR: 0.05})  # as calibrated: that takes a while
    found = scale(
        "tiny_mobilenet_v2:num_classes=10", target, family=False, finalists=1, table=place,
        bounds={"width_floor": 1.0, "width_cap": 1.0}, input_shape=(1, 1, 8, 8),
    )  # fmt: skip
    member = found.family[1]
    assert member.provenance == "compiled" and member.nn_mass >= found.family[0].nn_mass
    assert member.predicted["latency_ms"] == pytest.approx(member.cost["latency_ms"], rel=0.1)
