# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: points, axes, sorting, keys, schemes, and no requests.

``CHIPFIT_REQUIRE_BROWSER=1`` makes a missing browser a failure instead of a skip.
"""

import json
import os
import re
import shutil

import pytest

from chipfit.report import read_run, write_report
from chipfit.report.front import front
from chipfit.report.quantity import quantity, show

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


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

    def go(path, *, fragment="", width=1280, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        page = context.new_page()
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append((context, path.as_uri(), complaints, requests))
        page.goto(path.as_uri() + fragment)
        return page

    yield go
    for context, address, complaints, requests in opened:
        context.close()
        assert complaints == []
        assert {url.split("#")[0] for url in requests if not url.startswith("data:")} == {address}


def selected(page):
    return page.locator("#selected h3").inner_text()


def column(page, number):
    return page.locator(f"#family tbody tr > :nth-child({number})").evaluate_all(
        "cells => cells.map(cell => cell.dataset.sort)"
    )


def test_a_point_is_clicked_and_its_details_appear(report, visit, tmp_path):
    run = read_run(report.parent)
    page = visit(report)
    assert selected(page) == "netadapt-07"
    page.locator('#front [data-id="netadapt-05"]').click()
    assert selected(page) == "netadapt-05"
    assert page.url.endswith("#member=netadapt-05")
    assert page.locator("#details-title").inner_text() == "netadapt-05"
    assert page.locator('#front [data-id="netadapt-05"]').get_attribute("aria-checked") == "true"
    assert page.locator("#family tr.selected").get_attribute("data-id") == "netadapt-05"

    member = next(m for m in run.members if m.id == "netadapt-05")
    for key, value in member.values.items():
        text = page.locator(f'#selected td[data-key="{key}"]').text_content()
        assert text == show(value, quantity(key, metric=key in member.metrics))
    rows = page.locator("#changes tbody tr")
    assert rows.count() == len(member.changes) == 5
    for i, change in enumerate(member.changes):
        text = rows.nth(i).inner_text()
        assert change.group in text
        assert f"{change.before}→{change.after}" in text
        assert show(change.saved["latency_ms"], quantity("latency_ms")) in text
        assert show(change.metrics_after["val_accuracy"], quantity("val_accuracy")) in text
    widths = page.locator("#widths li")
    assert widths.count() == len(member.architecture)
    shown = widths.filter(has=page.locator('[title="features.5.conv.0.0"]')).inner_text()
    assert "240 → 152" in shown
    assert page.locator("#layers li").count() == len(member.layers)
    error = page.locator("#predicted tbody tr td").last.text_content()
    assert float(error.split()[0].replace("−", "-")) == pytest.approx(
        100 * member.prediction_error("latency_ms"), abs=0.006
    )
    assert page.locator("#parity tbody tr").count() == 2
    picture = tmp_path / "report.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    print(f"screenshot: {picture}")


def test_bars_are_as_long_as_what_they_show(report, visit):
    run = read_run(report.parent)
    page = visit(report)
    lengths = page.locator("#layers li").evaluate_all(
        "rows => rows.map(row => [row.dataset.name,"
        " ...[...row.querySelectorAll('i')].map(bar => bar.getBoundingClientRect().width)])"
    )
    was = {layer.name: layer.cost["latency_ms"] for layer in run.original.layers}
    now = {layer.name: layer.cost["latency_ms"] for layer in run.members[-1].layers}
    scale = max(length for row in lengths for length in row[1:]) / max(was.values())
    for name, before, after in lengths:
        assert before == pytest.approx(max(1, was[name] * scale), abs=0.6)
        assert after == pytest.approx(max(1, now[name] * scale), abs=0.6)
    page.get_by_label("Order of layers").select_option("saving")
    names = page.locator("#layers li").evaluate_all("rows => rows.map(row => row.dataset.name)")
    assert names == sorted(was, key=lambda name: now[name] - was[name])


def test_the_axes_are_switched(report, visit):
    run = read_run(report.parent)
    page = visit(report)
    assert page.locator("#front line.budget").count() == 1
    for metric in ("int8_test_accuracy", "val_accuracy"):
        for cost in ("latency_ms", "macs", "params", "peak_sram_bytes", "cpu_latency_ms"):
            page.select_option("#metric", metric)
            page.select_option("#cost", cost)
            on = {m.id for m in front(run, metric, cost)}
            points = page.locator("#front .point[data-id]")
            dominated = page.locator("#front .point.dominated[data-id]").evaluate_all(
                "points => points.map(point => point.dataset.id)"
            )
            assert points.count() == 8
            assert set(dominated) == {m.id for m in run.members} - on
            rows = page.locator("#family tr.front").evaluate_all("r => r.map(x => x.dataset.id)")
            assert set(rows) == on
            places = points.evaluate_all(
                "points => Object.fromEntries(points.map(p => [p.dataset.id,"
                " p.transform.baseVal.consolidate().matrix.e]))"
            )
            order = sorted(run.members, key=lambda m: m.values[cost])
            assert [places[m.id] for m in order] == sorted(places.values())
    assert page.locator("#front line.budget").count() == 0
    assert quantity("cpu_latency_ms").label in page.locator("#front").inner_text()


def test_the_table_is_sorted_both_ways(report, visit):
    page = visit(report)
    before = column(page, 5)
    head = page.locator("#family thead th").nth(4)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 5) == sorted(before, key=float)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 5) == sorted(before, key=float, reverse=True)
    page.locator("#family thead th").nth(0).locator("button").click()
    assert column(page, 5) == before
    page.locator('#family tr[data-id="netadapt-02"] td').nth(2).click()
    assert selected(page) == "netadapt-02"


def test_unknown_figures_stay_at_the_end_of_the_table(run_dir, visit):
    path = run_dir / "candidates" / "netadapt-03" / "candidate.json"
    path.write_text(json.dumps({"id": "bare", "cost": {"macs": 7}, "metrics": {}}))
    page = visit(write_report(run_dir))
    button = page.locator("#family thead th").nth(4).locator("button")
    for _ in range(2):
        button.click()
        assert column(page, 5)[-1] == ""
    assert "1 of 8 members" in page.locator("#front-note").inner_text()
    page.locator('#family tr[data-id="bare"] a').click()
    assert selected(page) == "bare"
    assert (
        "recorded no layers" in page.locator("#details-body").inner_text()
        or page.locator("#widths").is_visible()
    )


def test_keys_go_through_the_members(report, visit):
    page = visit(report)
    page.locator('#front [tabindex="0"]').focus()
    page.keyboard.press("ArrowRight")
    assert selected(page) == "netadapt-06"
    page.keyboard.press("ArrowRight")
    assert selected(page) == "netadapt-05"
    page.keyboard.press("End")
    assert selected(page) == "original"
    page.keyboard.press("ArrowLeft")
    assert selected(page) == "netadapt-01"
    focus = "document.activeElement.dataset.id"
    assert page.evaluate(focus) == "netadapt-01"
    page.locator("#previous").click()
    assert selected(page) == "original"
    assert page.locator("#previous").is_disabled()


def test_pointing_at_a_member_explains_it(report, visit):
    page = visit(report)
    page.locator('#front [data-id="netadapt-03"]').hover()
    text = page.locator("#front .tip").inner_text()
    assert "netadapt-03" in text
    assert "against the original" in text
    page.mouse.move(2, 2)
    assert page.locator("#front .tip").count() == 0
    page.locator("#trajectory .kept").first.hover()
    assert "Step 1, kept" in page.locator("#trajectory .tip").inner_text()
    assert page.locator("#trajectory .kept[transform]").count() == 7
    assert page.locator("#trajectory .proposal[transform]").count() == 7 * 11
    page.locator("#steps summary").click()
    assert page.locator("#steps tbody tr").count() == 7


def test_an_address_selects_its_member(report, visit):
    page = visit(report, fragment="#member=netadapt-02")
    assert selected(page) == "netadapt-02"
    page.evaluate("location.hash = '#member=netadapt-04'")
    page.wait_for_function("document.querySelector('#selected h3').textContent === 'netadapt-04'")
    assert selected(visit(report, fragment="#member=%E0%A4%A")) == "netadapt-07"


@pytest.mark.parametrize(
    ("width", "scheme"), [(360, "light"), (360, "dark"), (820, "light"), (1280, "dark")]
)
def test_nothing_sticks_out_and_text_can_be_read(report, visit, width, scheme, tmp_path):
    page = visit(report, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (
        "body",
        "h1 .device",
        ".pill",
        "#selected .note",
        "#front text",
        ".up",
        ".down",
    ):
        assert contrast(page, selector) >= 4.5, selector
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.emulate_media(media="print")
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9
    page.screenshot(path=tmp_path / "print.png", full_page=True)


def contrast(page, selector):
    """Return the WCAG contrast of a text against the nearest background that is painted."""
    ink, paper = page.locator(selector).first.evaluate(
        """node => {
          const style = getComputedStyle(node);
          let at = node, paper = "";
          do {
            paper = getComputedStyle(at).backgroundColor;
            at = at.parentElement;
          } while (at && /, 0\\)$/.test(paper));
          return [node instanceof SVGElement ? style.fill : style.color, paper];
        }"""
    )
    low, high = sorted((luminance(ink), luminance(paper)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_hostile_names_are_text(make_run, visit):
    evil = '</script><b onclick="x">'
    run = make_run(network=evil)
    path = run / "candidates" / "netadapt-01" / "candidate.json"
    data = json.loads(path.read_text())
    data["id"] = data["changes"][0]["group"] = data["layers"][0]["name"] = evil
    path.write_text(json.dumps(data))
    page = visit(write_report(run))
    assert page.locator("h1 .network").text_content() == evil
    page.locator("#member").select_option(evil)
    assert selected(page) == evil
    assert page.locator("b[onclick]").count() == 0
    assert evil in page.locator("#changes").inner_text()


def test_an_unfinished_run_opens(tmp_path, run_dir, visit):
    (tmp_path / "config.json").write_text('{"network": "net"}')
    page = visit(write_report(tmp_path))
    assert page.locator("#front-card").is_hidden()
    assert "Run not finished" in page.locator(".headline").inner_text()
    lines = (run_dir / "journal.jsonl").read_text().splitlines()[:9]
    (run_dir / "journal.jsonl").write_text("\n".join(lines))
    for path in run_dir.glob("candidates/netadapt-*/candidate.json"):
        path.write_text(json.dumps({"id": path.parent.name, "cost": {}, "metrics": {}}))
    page = visit(write_report(run_dir))
    assert page.locator("#front .point[data-id]").count() == 1
    assert page.locator("#search").is_visible()


def test_the_page_can_be_read_without_scripts(report, visit):
    page = visit(report, java_script_enabled=False)
    text = page.locator("main").inner_text()
    for part in ("Budget met", "netadapt-07", "The family", "chipfit fit tiny_mobilenet_v2"):
        assert part in text
    assert page.locator("#front-card").is_hidden()
