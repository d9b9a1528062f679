import ast
from pathlib import Path

import pytest

import chipfit

ROOT = Path(chipfit.__file__).parent

#: Packages that each package may import from; its own is always allowed.
ALLOWED = {
    "allocate": set(),
    "graph": set(),
    "cost": {"graph", "targets"},
    # nets: measurements of a board name networks of the zoo.
    "targets": {"cost", "graph", "export", "nets"},
    "blocks": set(),
    # A search space is a network of the zoo with swaps to choose from.
    "nets": {"blocks", "space"},
    "space": {"graph", "rewrite", "blocks"},
    "rewrite": {"graph", "blocks"},
    "export": {"graph"},
    "scores": {"graph"},
    "runs": {"rewrite"},
    "train": {"tasks", "rewrite", "runs"},
    "tasks": {"train"},
    "blackbox": {"space"},
    "supernet": {"blocks", "graph", "space", "rewrite", "train", "tasks"},
    "methods": {"space", "graph", "targets", "cost", "tasks", "rewrite", "train", "runs", "blocks",
                "supernet", "scores", "blackbox", "allocate"},
    "report": set(),
    "flow": {"graph", "cost", "targets", "nets", "methods", "tasks", "rewrite", "train", "runs",
             "export", "space", "scores"},
    "cli": {"flow", "report"},
}  # fmt: skip
SHARED = {
    "cache",
    "interrupts",
    "machine",
    "packages",
    "ranks",
    "user_code",
    "errors",
    "registry",
    "workers",
    "worker",
    "files",
    "__init__",
}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chipfit"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("chipfit."):
                    yield alias.name.split(".")[1]


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_import_only_what_they_may(path):
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        return
    allowed = ALLOWED[parts[0]] | SHARED | {parts[0], "__version__"}
    assert set(_imports(path)) <= allowed


def test_every_package_has_a_rule():
    packages = {p.parent.relative_to(ROOT).parts[0] for p in FILES if p.parent != ROOT}
    assert packages == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_carry_the_licence(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    assert len(lines) <= 400
    assert path.stem != "utils"
