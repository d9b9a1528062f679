# SPDX-License-Identifier: Apache-2.0
"""The page without a browser: whole, escaped, free of requests, and written atomically."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from chipfit.errors import BadInput
from chipfit.report import write_report

EVIL = "</script><b>\"x' & <!--\u2028"


class Page(HTMLParser):
    """Collects elements, attributes and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.ids = [], [], [], []
        self.styles, self.text, self._inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self._inside = tag
        if tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside in ("script", "style"):
            kept = self.scripts if self._inside == "script" else self.styles
            kept[-1] = (kept[-1][0], kept[-1][1] + data)
        else:
            self.text.append(data)


def page_of(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def data_of(page):
    return json.loads(page.scripts[0][1])


def drop(run, *keys, names=("original", *(f"netadapt-{i:02d}" for i in range(1, 8)))):
    for name in names:
        path = run / "candidates" / name / "candidate.json"
        data = json.loads(path.read_text())
        for key in keys:
            place, _, leaf = key.rpartition(".")
            (data[place] if place else data).pop(leaf, None)
        path.write_text(json.dumps(data))


def test_the_page_tells_the_result(run_dir):
    page = page_of(run_dir)
    text = " ".join(" ".join(page.text).split())
    for part in ("tiny_mobilenet_v2", "ethos-u55-128", "Budget met", "netadapt-07", "runs/fashion"):
        assert part in text
    for part in ("Ethos_U55_High_End_Embedded", "onnxruntime", "1.22.0", "7 min 38", "2.13.0"):
        assert part in text
    data = data_of(page)
    assert data["best"] == "netadapt-07"
    assert len(data["members"]) == 8
    front = [f"netadapt-{i:02d}" for i in (2, 3, 4, 5, 7)]
    assert data["fronts"]["val_accuracy|latency_ms"] == front
    links = [v for tag, name, v in page.attributes if tag == "a" and name == "href"]
    for link in (v for v in links if not v.startswith("#")):
        assert (run_dir / link).is_file()
    assert sum(link.endswith(".tflite") for link in links) == 8


def test_nothing_is_fetched(run_dir):
    page = page_of(run_dir)
    addresses = [v for _, name, v in page.attributes if name in ("src", "href", "action", "srcset")]
    assert addresses
    for address in addresses:
        assert not re.match(r"(?:[a-z]+:)?//", address), address
    for _, css in page.styles:
        assert "@import" not in css
        assert "url(" not in css
    for call in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "innerHTML", "eval("):
        assert call not in page.scripts[1][1]


def test_the_policy_allows_this_script_and_this_style_only(run_dir):
    page = page_of(run_dir)
    policy = next(
        v for tag, _, v in page.attributes if tag == "meta" and "default-src" in (v or "")
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for _, text in (page.scripts[1], page.styles[0]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]


def test_all_strings_of_a_run_are_escaped(make_run):
    plain = page_of(make_run())
    run = make_run(
        network=EVIL, target=EVIL, method=EVIL, task=EVIL, command=EVIL, fingerprint=EVIL,
        method_options={EVIL: [EVIL, {EVIL: EVIL}]},
    )  # fmt: skip
    path = run / "candidates" / "netadapt-01" / "candidate.json"
    data = json.loads(path.read_text())
    data |= {"id": EVIL, "parent": EVIL, "provenance": EVIL, "verify": {EVIL: {EVIL: 1.0}}}
    data["files"] = {EVIL: f"candidates/{EVIL[2:]}.tflite"}
    data["architecture"] = {EVIL: EVIL}
    data["layers"] = [{"name": EVIL, "kind": EVIL, "output": [EVIL], "cost": {EVIL: 1.0}}]
    data["changes"] = [{"group": EVIL, "from": EVIL, "to": EVIL}]
    data["metrics"][EVIL] = 1.0
    path.write_text(json.dumps(data))
    with (run / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"event": "stage", "name": EVIL, "seconds": 1.0}) + "\n")
        file.write(
            json.dumps({"event": "proposal", "step": 9, "group": EVIL, "width": EVIL}) + "\n"
        )
    page = page_of(run)
    assert len(page.scripts) == len(plain.scripts) == 2
    assert set(page.tags) - set(plain.tags) <= {"span"}
    assert page.tags.count("b") == plain.tags.count("b")
    assert data_of(page)["network"] == EVIL
    assert any(m["id"] == EVIL for m in data_of(page)["members"])
    assert EVIL in "".join(page.text)
    assert "<!--" not in page.scripts[0][1]


def test_text_like_a_placeholder_stays_text(make_run):
    page = page_of(make_run(network="{{script}}"))
    assert "{{script}}" in "".join(page.text)


@pytest.mark.parametrize(
    "keys",
    [
        ["metrics.test_accuracy", "metrics.int8_test_accuracy", "files", "verify", "cpu"],
        ["cost.cycles", "cost.peak_sram_bytes", "predicted", "spread", "provenance"],
        ["architecture", "layers", "changes", "step", "parent"],
        ["cost.latency_ms"],
        ["metrics.val_accuracy", "metrics.test_accuracy", "metrics.int8_test_accuracy"],
    ],
)
def test_missing_figures_are_dashes(run_dir, keys):
    drop(run_dir, *keys)
    page = page_of(run_dir)
    text = "".join(page.text)
    assert data_of(page)["members"]
    for wrong in ("None", "NaN", "nan", "undefined", "inf "):
        assert wrong not in text
    if "cost.latency_ms" in keys or "metrics.test_accuracy" in keys:
        assert "—" in text


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "config.json").write_text('{"network": "net", "budget": {"latency_ms": 1}}')
    text = "".join(page_of(tmp_path).text)
    assert "Run not finished" in text
    assert "Budget not judged yet" in text
    assert "No member has been recorded yet" in text
    assert not (tmp_path / "front.png").exists()


def test_a_budget_that_is_not_met_says_who_is_closest(make_run):
    text = "".join(page_of(make_run(budget={"latency_ms": 0.2})).text)
    assert "Budget not met" in text
    assert "netadapt-07 comes closest" in text


def test_two_budgets_and_a_metric_of_another_task(make_run):
    run = make_run(budget={"peak_sram_bytes": 65536, "energy_mj": 4})
    for path in run.glob("candidates/*/candidate.json"):
        data = json.loads(path.read_text())
        data["metrics"] = {"val_psnr_db": 33.1 + data["cost"]["latency_ms"]}
        path.write_text(json.dumps(data))
    page = page_of(run)
    assert data_of(page)["metrics"] == ["val_psnr_db"]
    assert data_of(page)["axes"] == ["val_psnr_db", "peak_sram_bytes"]
    assert "Accuracy int8" not in "".join(page.text)
    assert "Val psnr" in "".join(page.text)


def test_a_picture_of_the_front_is_written(run_dir):
    pytest.importorskip("matplotlib")
    write_report(run_dir)
    picture = (run_dir / "front.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(picture[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (1200, 720)


def test_reports_replace_each_other_and_leave_nothing_behind(run_dir):
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first
    assert not [p.name for p in run_dir.iterdir() if p.name.startswith(".")]


def test_what_is_not_a_run_has_no_report(tmp_path):
    with pytest.raises(BadInput):
        write_report(tmp_path)
