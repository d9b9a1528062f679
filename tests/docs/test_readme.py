"""Everything the README tells a reader to type is typed here, in order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README.read_text(), re.M | re.S)


@pytest.mark.slow
def test_commands_and_snippets_run(tmp_path):
    assert {kind for kind, _ in BLOCKS} == {"bash", "python"}
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    for kind, text in BLOCKS:
        if kind == "bash":
            # `git` and `make` are what got this test here; the rest is for real.
            lines = [x for x in text.splitlines() if not re.match(r"\s*(git|cd|make)\b", x)]
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        else:
            command = [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert list(tmp_path.glob("out/*.tflite"))


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (README.parent / target).exists(), target
