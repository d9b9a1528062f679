"""Everything the README and docs/ tell a reader to type is typed here, in order, in a folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(document):
    return re.findall(r"^```(bash|python)\n(.*?)^```", document.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A cost table that all documents share, as a reader's would."""
    return tmp_path_factory.mktemp("table") / "costs.sqlite"


def _run(document, folder, table):
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CHIPFIT_TABLE": str(table)}
    shutil.copytree(ROOT / "examples", folder / "examples")
    for kind, text in _blocks(document):
        if kind == "bash":
            # `git` and `make` are what got this test here; the rest is for real.
            lines = [x for x in text.splitlines() if not re.match(r"\s*(git|cd|make)\b", x)]
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        else:
            command = [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_the_commands_and_snippets_of_the_readme_run(tmp_path, table):
    assert {kind for kind, _ in _blocks(DOCUMENTS[0])} == {"bash", "python"}
    _run(DOCUMENTS[0], tmp_path, table)
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert list(tmp_path.glob("out/*.tflite"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS[1:] if _blocks(d)], ids=lambda path: path.name
)
def test_the_commands_and_snippets_of_the_documents_run(document, tmp_path, table):
    _run(document, tmp_path, table)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_exist(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (document.parent / target).exists(), target
