# SPDX-License-Identifier: Apache-2.0
"""The card of a search, without a browser and in one."""

import itertools
import json
import os
import shutil
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from chipfit.cli.main import cli
from chipfit.report import read_run, write_report
from chipfit.runs.run import Run

EVIL = '</script><b onclick="x">\'&'
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")


class Page(HTMLParser):
    """Collects text, the operations of the derived network, and the data for the script."""

    def __init__(self, text):
        super().__init__()
        self.text, self.options, self.tags, self.data, self._inside = [], [], [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self._inside = given.get("id") if tag in ("script", "style") else None
        self._inside = self._inside or (tag if tag in ("script", "style") else None)
        if "data-choice" in given:
            self.choice = given["data-choice"]
        if "data-option" in given:
            self.options.append(
                (self.choice, given["data-option"], given["class"], "aria-current" in given)
            )

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data):
        if self._inside == "run-data":
            self.data = json.loads(data)
        elif self._inside is None:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def page_of(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_the_card_is_complete_without_the_script(search_run):
    page = page_of(search_run)
    for part in ("Supernet search: fbnet", "4 choices of 2 to 4 operations", "Step 200 of 200",
                 "50.0 s", "Derived network: fbnet-1", "Steps as a table", "0.5900 ms"):  # fmt: skip
        assert part in page.words, part
    assert "Skips are taking over" not in page.words
    assert page.options == [
        ("blocks.0", "k3_e1", "option", True), ("blocks.0", "k5_e3", "option", False),
        ("blocks.1", "k3_e1", "pruned", False), ("blocks.1", "k3_e3", "option", True),
        ("blocks.1", "k5_e3", "option", False), ("blocks.1", "skip", "option", False),
        ("blocks.2", "k3_e1", "option", False), ("blocks.2", "k3_e3", "option", False),
        ("blocks.2", "k5_e3", "option", False), ("blocks.2", "skip", "option", True),
        ("blocks.3", "k3_e3", "option", True), ("blocks.3", "skip", "option", False),
    ]  # fmt: skip
    (search,) = read_run(search_run).journal.searches
    last = search.probabilities("blocks.2")["skip"]
    assert f"skip {100 * last:.0f} %" in page.words


def test_curves_and_maps_hold_what_was_recorded(search_run):
    (data,) = page_of(search_run).data["searches"]
    recorded = [e for e in Run.read(search_run).journal if e["event"] == "search"]
    lines = {(c["key"], x["name"]): x["values"] for c in data["charts"] for x in c["lines"]}
    assert lines["Loss", "training"] == [e["loss"] for e in recorded]
    assert lines["Loss", "validation"] == [e["val_loss"] for e in recorded]
    assert lines["val_accuracy", "Validation accuracy"] == [e["val_accuracy"] for e in recorded]
    assert lines["expected_latency_ms", "expected"] == [
        e["expected"]["latency_ms"] for e in recorded
    ]
    assert lines["expected_latency_ms", "budget"] == [0.6] * 20
    assert ("expected_macs", "budget") not in lines
    assert lines["Entropy", "entropy"] == [e["entropy"] for e in recorded]
    assert lines["Skip share", "warning"] == [0.5] * 20
    (found,) = [m for m in data["maps"] if m["choice"] == "blocks.1"]
    assert found["steps"] == list(range(10, 201, 10))
    for i, row in enumerate(found["rows"]):
        assert row["values"] == [round(e["probabilities"]["blocks.1"][i], 4) for e in recorded]


def test_a_collapse_is_warned_of_and_its_rule_told(make_search_run):
    page = page_of(make_search_run(collapse=True))
    assert "Skips are taking over" in page.words
    assert "above 50 %" in page.words
    (chart,) = [c for c in page.data["searches"][0]["charts"] if c["key"] == "Skip share"]
    shares = chart["lines"][0]["values"]
    first = chart["marked"].index(True)
    assert shares[first] > 0.5
    assert all(chart["marked"][first:])
    assert not any(chart["marked"][:first])


def test_a_long_search_is_thinned(tmp_path):
    run = Run.open(tmp_path / "long", {"network": "net"})
    names = ["a", "b"]
    run.record("supernet", "m/supernet", method="m", choices={"c": names})
    for step in range(1, 601):
        with_probabilities = {"probabilities": {"c": [step / 600, 1 - step / 600]}}
        run.record("search", f"m/search/{step}", method="m", step=step, steps=600, loss=1 / step,
                   **with_probabilities)  # fmt: skip
    run.close()
    page = page_of(tmp_path / "long")
    (data,) = page.data["searches"]
    assert [len(data["charts"][0]["steps"]), len(data["maps"][0]["steps"])] == [400, 48]
    assert data["maps"][0]["steps"][-1] == data["charts"][0]["steps"][-1] == 600
    assert "40 of 600 recorded steps as a table" in page.words
    assert "Derived network" not in page.words


def test_a_run_without_a_search_has_no_card(run_dir):
    page = page_of(run_dir)
    assert page.data["searches"] == []
    assert "Supernet search" not in page.words


def test_names_are_text(search_run, tmp_path):
    plain = page_of(search_run)
    run = Run.open(tmp_path / "evil", {"network": "net"})
    run.record("supernet", f"{EVIL}/supernet", method=EVIL, choices={EVIL: [EVIL, "skip"]})
    run.record("search", f"{EVIL}/search/1", method=EVIL, step=1, val_accuracy=0.5, steps=2,
               expected={EVIL: 1.0}, budget={EVIL: 2.0}, probabilities={EVIL: [1.0, 0.0]},
               skip_share=0.7, collapsing=True)  # fmt: skip
    run.close()
    for name in ("fbnet-1", "original"):
        shutil.copytree(search_run / "candidates" / name, run.folder / "candidates" / name)
    path = run.folder / "candidates" / "fbnet-1" / "candidate.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architecture": {EVIL: EVIL}}))
    page = page_of(run.folder)
    assert page.options == [(EVIL, EVIL, "option", True), (EVIL, "skip", "pruned", False)]
    assert page.data["searches"][0]["name"] == EVIL
    assert set(page.tags) <= set(plain.tags) | {"b", "p"}


def test_the_command_prints_one_document_and_writes_events(search_run, tmp_path):
    pytest.importorskip("tensorboard")
    events = tmp_path / "events"
    done = CliRunner().invoke(
        cli, ["report", str(search_run), "--json", "--tensorboard", str(events)]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["tensorboard"] == str(events)
    assert document["searches"][0]["last"]["step"] == 200
    assert len(list(events.glob("fbnet/events.out.tfevents.*"))) == 1
    told = CliRunner().invoke(cli, ["report", str(search_run)]).output.replace("\u00a0", " ")
    assert "search fbnet: step 200 of 200" in told
    followed = ["report", str(search_run), "--tensorboard", str(events), "--follow"]
    assert CliRunner().invoke(cli, followed).exit_code == 0
    refused = CliRunner().invoke(cli, ["report", str(search_run), "--follow"])
    assert refused.exit_code != 0
    assert "--tensorboard" in str(refused.exception)


def unavailable(reason):
    if os.environ.get("CHIPFIT_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{reason}, and CHIPFIT_REQUIRE_BROWSER=1")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        unavailable(f"no browser on the PATH: looked for {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Return a function that opens a report; afterwards nothing may have gone wrong on it."""
    opened = []

    def go(path, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:"))
            else None,
        )  # fmt: skip
        opened.append((context, wrong))
        page.goto(path.as_uri())
        return page

    yield go
    for context, wrong in opened:
        context.close()
        assert wrong == []


def test_curves_and_maps_are_drawn_at_their_values(search_run, visit):
    page = visit(write_report(search_run))
    place = page.locator('#supernet-0-curves [data-key="expected_latency_ms"]')
    heights = place.locator("path.curve.first").evaluate(
        "path => path.getAttribute('d').match(/[^ML]+/g).map(p => Number(p.split(' ')[1]))"
    )
    bound = place.locator("path.curve.bound").evaluate(
        "path => Number(path.getAttribute('d').match(/[^ML]+/)[0].split(' ')[1])"
    )
    recorded = [e for e in Run.read(search_run).journal if e["event"] == "search"]
    values = [e["expected"]["latency_ms"] for e in recorded]
    scale = (heights[-1] - heights[0]) / (values[0] - values[-1])
    for height, value in zip(heights, values, strict=True):
        assert height == pytest.approx(heights[0] + scale * (values[0] - value), abs=0.05)
    assert bound == pytest.approx(heights[0] + scale * (values[0] - 0.6), abs=0.05)
    place.hover()
    assert "budget" in place.locator(".tip").inner_text()
    page.mouse.move(2, 2)
    assert place.locator(".tip").count() == 0
    maps_are_as_full_as_probable(page, search_run)


def maps_are_as_full_as_probable(page, search_run):
    (search,) = read_run(search_run).journal.searches
    assert page.locator("#supernet-0-maps .chart").count() == 4
    place = page.locator('#supernet-0-maps [data-choice="blocks.1"]')
    cells = place.locator("rect.cell").evaluate_all(
        "cells => cells.map(c => [c.y.baseVal.value, c.x.baseVal.value, c.width.baseVal.value,"
        " Number(c.getAttribute('fill-opacity'))])"
    )
    rows = {}
    for y, x, width, value in cells:
        rows.setdefault(y, []).append((x, width, value))
    assert [len(row) for _, row in sorted(rows.items())] == [9, 20, 20, 20]
    for (_, row), name in zip(sorted(rows.items()), search.choices["blocks.1"], strict=True):
        told = [s.probabilities["blocks.1"][name] for s in search.steps][: len(row)]
        assert [value for *_, value in row] == pytest.approx(told, abs=6e-4)
        for (x, width, _), (after, *_) in itertools.pairwise(row):
            assert x + width == pytest.approx(after, abs=0.02)
    assert place.locator("text.pruned").text_content() == "k3_e1"


def test_the_derived_network_follows_the_selected_member(search_run, visit):
    page = visit(write_report(search_run))

    def chosen():
        return page.locator("#supernet-0-derived li[aria-current]").evaluate_all(
            "items => items.map(item => item.dataset.option)"
        )

    assert chosen() == ["k3_e1", "k3_e3", "skip", "k3_e3"]
    page.locator('#family tr[data-id="fbnet-2"] a').click()
    assert page.locator("#supernet-0-derived .member").inner_text() == "fbnet-2"
    assert chosen() == ["k3_e1", "k5_e3", "k3_e3", "skip"]
    page.locator('#family tr[data-id="original"] a').click()
    assert chosen() == ["k3_e1", "k5_e3", "k3_e3", "skip"]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (820, "dark")])
def test_nothing_sticks_out(make_search_run, visit, width, scheme, tmp_path):
    page = visit(write_report(make_search_run(collapse=True)), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".alarm").is_visible()
    page.locator("#supernet-0 summary").click()
    assert page.locator("#supernet-0 details tbody tr").count() == 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": width + 200, "height": 900})
    drawn = page.locator("#supernet-0 .chart").evaluate_all(
        "charts => charts.map(chart => [chart.clientWidth,"
        " ...[...chart.querySelectorAll('svg')].map(svg => svg.viewBox.baseVal.width)])"
    )
    assert len(drawn) == 7 + 4
    assert all(widths[0] == pytest.approx(widths[1], abs=1) for widths in drawn)
    page.screenshot(path=tmp_path / "search.png", full_page=True)
