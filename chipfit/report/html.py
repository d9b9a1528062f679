# SPDX-License-Identifier: Apache-2.0
"""Put ``report.html`` together: one file that needs nothing else and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib.resources import files

from chipfit.report import facts, search_page, sections
from chipfit.report.data import RunData
from chipfit.report.view import embed, view

#: Parts of the script, in order; they share one scope.
SCRIPTS = (
    "format.js", "dom.js", "chart.js", "front.js", "member.js", "bars.js", "trajectory.js",
    "search.js", "report.js",
)  # fmt: skip


def render(run: RunData) -> str:
    """Return the report of a run as one HTML document.

    What is text is in the document; the script draws the charts and the selected member. A
    content security policy allows this script and this style only, and no requests.

    Args:
        run: What :func:`chipfit.report.read.read_run` returns.
    """
    style = _asset("report.css")
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": escape(f"{run.network} on {run.target} · chipfit"),
        "policy": escape(policy),
        "style": style,
        "script": script,
        "data": embed(view(run)),
        "headline": sections.headline(run),
        "family": sections.family(run),
        "searches": search_page.searches(run),
        "stages": facts.stages(run),
        "settings": facts.settings(run),
        "footer": facts.footer(run),
    }
    # One pass, so that nothing that was put in is looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("report.html"))


def _asset(name: str) -> str:
    return (files("chipfit.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
