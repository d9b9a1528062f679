"""RAN-e's pattern benchmarks on small settings, and what they judge by."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.pattern_store import PatternStore, Recipe  # noqa: E402
from benchmarks.ran_e_exhaustive import (  # noqa: E402
    Outcome,
    below_front,
    front,
    gates_of,
    rank,
    spec_of,
    text_of,
)
from benchmarks.run import QUICK  # noqa: E402
from chipfit.errors import BadInput  # noqa: E402
from chipfit.nets import create  # noqa: E402
from chipfit.rewrite.edits import Edit  # noqa: E402
from chipfit.rewrite.swap import Swap  # noqa: E402
from chipfit.targets import create as create_target  # noqa: E402


def quick(name, tmp_path):
    """Run a benchmark's quick setting; return its tables by title."""
    arguments = ["--out", str(tmp_path), *QUICK[name]]
    arguments[arguments.index("--store") + 1] = str(tmp_path / "store")
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.main([*arguments, "--workers", "1"]) == 0
    tables = json.loads((tmp_path / f"{name}.json").read_text())["tables"]
    return {table["title"]: table["rows"] for table in tables}


def outcome(cycles, accuracy, linear=0):
    gates = tuple(i < linear for i in range(6))
    return Outcome(gates, cycles / 500.0, float(cycles), accuracy, accuracy)


def test_the_front_and_distances_from_it():
    every = [outcome(10, 0.70), outcome(20, 0.80), outcome(25, 0.75), outcome(30, 0.80)]
    assert [o.cycles for o in front(every)] == [10, 20]
    assert [below_front(o, every) for o in every] == pytest.approx([0, 0, 5, 0])
    assert rank(every[2], every, 25 / 500) == (2, 3)
    assert rank(every[1], every, 30 / 500) == (1, 4)


def test_collapsed_blocks_are_read_from_the_edits():
    def swap(module, block="pre_activation_conv"):
        return Swap(module, block, 8, 8)

    assert gates_of([]) == (False,) * 6
    gates = gates_of([swap("blocks.1"), swap("blocks.5")])
    assert text_of(gates) == "kLkkkL"
    assert "pattern=i3x4_c_i3x4_i3x4_i3x4_c," in spec_of(gates)
    for edit in (
        swap("head.0"), swap("blocks.1", "inverted_residual"), Edit("a.b", "out", 8, (0,))
    ):  # fmt: skip
        with pytest.raises(BadInput, match="collapses no block"):
            gates_of([edit])


def test_collapsed_blocks_are_those_that_ran_e_makes():
    kept = create(spec_of((False,) * 6)).blocks[0]
    linear = create(spec_of((True,) * 6)).blocks[0]
    swapped = Swap(
        "blocks.0", "pre_activation_conv", 8, 8, 1, {"kernel": 3, "act": "relu6"}
    ).build()
    assert type(kept) is not type(linear) is type(swapped)
    assert [p.shape for p in linear.parameters()] == [p.shape for p in swapped.parameters()]


def test_compiled_patterns_are_kept(tmp_path):
    target, recipe = create_target("ethos-u55-128"), Recipe(32, "ran_e_tiny", 10)
    patterns = [("c",) * 16, ("c",) * 15 + ("i3x2",)]
    with PatternStore(tmp_path, target, recipe) as store:
        first = store.compile_many(patterns, "relu6")
        assert store.compilations == 2
        assert store.nn_mass(patterns[0]) == store.nn_mass(patterns[1]) > 0
    with PatternStore(tmp_path, target, recipe) as again:
        assert again.compile_many([patterns[1], patterns[0]], "relu6") == first[::-1]
        assert again.compilations == 0
    assert first[0].cycles != first[1].cycles


def test_ran_e_exhaustive(tmp_path):
    tables = quick("ran_e_exhaustive", tmp_path)
    every = tables["all patterns"]
    assert {row["pattern"] for row in every} == {"kkkkkk", "kkkkkL"}
    assert min(row["below front"] for row in every) == 0
    assert tables["what a seed is worth"][0]["int8 test %"]["n"] == 2
    kept = sorted(path.name for path in (tmp_path / "store").rglob("*.json"))
    assert kept == ["0.json", "0.json", "1.json"]


def test_ran_e_cifar(tmp_path):
    ((title, rows),) = quick("ran_e_cifar", tmp_path).items()
    assert "on ethos-u55-256" in title
    original, *others = rows
    assert original["x budget"] > 1
    assert len(others) == 3
    assert all(row["x budget"] < 1.05 for row in others)
    assert len({row["images"] for row in rows}) == 1


def test_settings_that_make_no_sense_are_refused(tmp_path):
    for name, arguments in (
        ("ran_e_exhaustive", ["--patterns", "65"]),
        ("ran_e_cifar", ["--share", "0"]),
        ("ran_e_search", ["--patience", "0"]),
    ):
        module = importlib.import_module(f"benchmarks.{name}")
        assert module.main(["--out", str(tmp_path), *arguments]) == 2
