# SPDX-License-Identifier: Apache-2.0
"""A run directory as ``chipfit fit`` leaves it: a small inverted-bottleneck network, NetAdapt."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chipfit.report import write_report
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.supernet.monitor import collapsed, mean_entropy, skip_share

#: (stride of the block, group of its expansion, group of its output), image 28 x 28.
BLOCKS = [
    (1, "features.1.conv.0.0", "features.1.conv.2"),
    (2, "features.2.conv.0.0", "features.2.conv.2"),
    (1, "features.3.conv.0.0", "features.2.conv.2"),
    (2, "features.4.conv.0.0", "features.4.conv.2"),
    (1, "features.5.conv.0.0", "features.4.conv.2"),
    (1, "features.6.conv.0.0", "features.6.conv.2"),
]
WIDTHS = {
    "features.0.0": 16,
    "features.1.conv.0.0": 48,
    "features.1.conv.2": 16,
    "features.2.conv.0.0": 96,
    "features.2.conv.2": 24,
    "features.3.conv.0.0": 144,
    "features.4.conv.0.0": 144,
    "features.4.conv.2": 40,
    "features.5.conv.0.0": 240,
    "features.6.conv.0.0": 240,
    "features.6.conv.2": 64,
    "features.7.0": 192,
}
#: The kept steps: group, new width, validation accuracy afterwards.
STEPS = [
    ("features.5.conv.0.0", 152, 0.9112),
    ("features.3.conv.0.0", 88, 0.9096),
    ("features.2.conv.0.0", 64, 0.9081),
    ("features.6.conv.0.0", 136, 0.9067),
    ("features.1.conv.0.0", 32, 0.9043),
    ("features.2.conv.2", 16, 0.8987),
    ("features.3.conv.0.0", 56, 0.8969),
]
FINAL = [0.9183, 0.9178, 0.9186, 0.9171, 0.9158, 0.9149, 0.9092, 0.9101]


def layers(widths: dict[str, int]) -> list[dict[str, Any]]:
    """Return the layers with hand-counted MACs and cycles that grow with them."""
    result: list[dict[str, Any]] = []

    def add(name: str, kind: str, channels: int, size: int, macs: int) -> None:
        cycles = round(macs / (72 if kind == "conv2d" else 9) + 9 * size * size + 410)
        cost = {"latency_ms": cycles / 500e3, "cycles": cycles, "macs": macs}
        output = [1, channels, size, size] if size > 1 else [1, channels]
        result.append({"name": name, "kind": kind, "output": output, "cost": cost})

    size, channels = 28, widths["features.0.0"]
    add("features.0.0", "conv2d", channels, size, channels * 9 * size * size)
    for i, (stride, inner, outer) in enumerate(BLOCKS, start=1):
        wide, out = widths[inner], widths[outer]
        add(f"features.{i}.conv.0.0", "conv2d", wide, size, channels * wide * size * size)
        size //= stride
        add(f"features.{i}.conv.1.0", "depthwise", wide, size, 9 * wide * size * size)
        add(f"features.{i}.conv.2", "conv2d", out, size, wide * out * size * size)
        channels = out
    last = widths["features.7.0"]
    add("features.7.0", "conv2d", last, size, channels * last * size * size)
    add("pool", "mean", last, 1, 0)
    add("classifier", "linear", 10, 1, last * 10)
    return result


def costs(widths: dict[str, int]) -> dict[str, float]:
    """Return the cost of a whole network."""
    items = layers(widths)
    cycles = sum(item["cost"]["cycles"] for item in items) + 3200
    params = sum(item["cost"]["macs"] // max(1, _pixels(item)) for item in items)
    biggest = max(_elements(a) + _elements(b) for a, b in itertools.pairwise(items))
    return {
        "latency_ms": cycles / 500e3,
        "cycles": cycles,
        "macs": sum(item["cost"]["macs"] for item in items),
        "params": params,
        "weight_bytes": params + 640,
        "peak_sram_bytes": biggest,
    }


def _pixels(item: dict[str, Any]) -> int:
    return item["output"][2] * item["output"][3] if len(item["output"]) == 4 else 1


def _elements(item: dict[str, Any]) -> int:
    return item["output"][1] * _pixels(item)


def write_json(path: Path, data: Any) -> None:
    """Write JSON, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def fill(run: Path, **config: Any) -> Path:
    """Write a finished run of an original and seven members into ``run``.

    Args:
        run: The run directory.
        config: Settings that replace those of ``config.json``.
    """
    dice = random.Random(7)
    before = costs(WIDTHS)["latency_ms"]
    settings = {
        "network": "tiny_mobilenet_v2",
        "target": "ethos-u55-128",
        "fingerprint": "ethos-u55-128/vela-5.0.0/9f31c2",
        "method": "netadapt",
        "method_options": {"steps": 7, "short_term_images": 12800, "criterion": "accuracy"},
        "budget": {"latency_ms": round(0.74 * before, 4)},
        "task": "fashion-mnist",
        "seed": 0,
        "input_shape": [1, 1, 28, 28],
        "command": "chipfit fit tiny_mobilenet_v2 --target ethos-u55-128 --budget latency_ms=74% "
        "--data fashion-mnist --method netadapt --seed 0 --run runs/fashion",
    }
    write_json(run / "config.json", settings | config)
    write_json(
        run / "environment.json",
        {
            "chipfit": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "platform": "Linux-6.1-x86_64",
            "cpu": "2 cores, AVX2",
            "packages": {"numpy": "2.2.6", "ethos-u-vela": "5.0.0", "onnxruntime": "1.22.0"},
            "target": {
                "system_config": "Ethos_U55_High_End_Embedded",
                "memory_mode": "Shared_Sram",
            },
        },
    )
    journal: list[dict[str, Any]] = [{"event": "started"}]
    for name, seconds, rss in (("data", 2.31, 310e6), ("train", 141.7, 702e6)):
        journal.append({"event": "stage", "name": name, "seconds": seconds, "peak_rss_bytes": rss})
    widths, changes, accuracy = dict(WIDTHS), [], 0.9128
    _candidate(run, "original", None, widths, changes, 0, dice)
    for number, (group, width, after) in enumerate(STEPS, start=1):
        old_cost = costs(widths)["latency_ms"]
        new = widths | {group: width}
        cost = costs(new)["latency_ms"]
        budget_ms = cost * 1.006
        for other in WIDTHS:
            predicted = cost * (1 - 0.02 * dice.random())
            score = after if other == group else after - 0.0004 - 0.016 * dice.random()
            size = width if other == group else max(8, widths[other] // 16 * 8)
            journal.append(
                {
                    "event": "proposal",
                    "step": number,
                    "group": other,
                    "width": size,
                    "predicted": {"latency_ms": predicted},
                    "val_accuracy": round(score, 4),
                }
            )
            chosen = predicted if other == group else None
            if chosen is not None:
                kept = chosen
        journal.append(
            {
                "event": "step",
                "step": number,
                "group": group,
                "width": width,
                "predicted": {"latency_ms": kept},
                "compiled": {"latency_ms": cost},
                "val_accuracy": after,
                "budget_ms": budget_ms,
            }
        )
        changes = [
            *changes,
            {
                "step": number,
                "group": group,
                "from": widths[group],
                "to": width,
                "latency_ms_saved": old_cost - cost,
                "val_accuracy_before": accuracy,
                "val_accuracy_after": after,
            },
        ]
        widths, accuracy = new, after
        _candidate(run, f"netadapt-{number:02d}", number, widths, changes, number, dice)
        journal.append({"event": "candidate", "id": f"netadapt-{number:02d}"})
    for name, seconds, rss in (
        ("cost table", 11.8, 388e6),
        ("search", 164.2, 934e6),
        ("fine-tune", 118.9, 861e6),
        ("export", 19.4, 1012e6),
    ):
        journal.append({"event": "stage", "name": name, "seconds": seconds, "peak_rss_bytes": rss})
    journal.append({"event": "finished"})
    (run / "journal.jsonl").write_text("".join(json.dumps(e) + "\n" for e in journal))
    return run


def _candidate(
    run: Path,
    name: str,
    step: int | None,
    widths: dict[str, int],
    changes: list[dict[str, Any]],
    number: int,
    dice: random.Random,
) -> None:
    cost = costs(widths)
    val = FINAL[number]
    test = round(val - 0.0061 + 0.002 * dice.random(), 4)
    folder = f"candidates/{name}"
    files = {"tflite": f"{folder}/model.tflite", "onnx": f"{folder}/model.onnx"}
    write_json(
        run / folder / "candidate.json",
        {
            "id": name,
            "step": step,
            "parent": None if step is None else "original",
            "architecture": widths,
            "metrics": {
                "val_accuracy": val,
                "test_accuracy": test,
                "int8_test_accuracy": round(test - 0.0035 * dice.random(), 4),
            },
            "cost": cost,
            "provenance": "compiled",
            "spread": {},
            "predicted": {"latency_ms": cost["latency_ms"] * (1 + 0.02 * (dice.random() - 0.6))},
            "cpu": {
                "latency_ms": 0.08 + cost["macs"] / 2.9e7,
                "spread_ms": 0.002 + 0.004 * dice.random(),
            },
            "files": files,
            "verify": {
                "tflite": {"max_abs_error": 0.31 + dice.random() / 9, "top1_agreement": 0.9924},
                "onnx": {"max_abs_error": 3.1e-6, "top1_agreement": 1.0},
            },
            "layers": layers(widths),
            "changes": changes,
        },
    )
    (run / files["tflite"]).write_bytes(bytes(int(cost["weight_bytes"]) + 9000))
    (run / files["onnx"]).write_bytes(bytes(4 * int(cost["params"]) + 3000))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run."""
    return fill(tmp_path / "run")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished run, for tests that only look at it."""
    return write_report(fill(tmp_path_factory.mktemp("report")))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a finished run with other settings."""
    return lambda **config: fill(tmp_path / "other", **config)


#: A supernet of four choices; the first has no skip.
CHOICES = {
    "blocks.0": ["k3_e1", "k5_e3"],
    "blocks.1": ["k3_e1", "k3_e3", "k5_e3", "skip"],
    "blocks.2": ["k3_e1", "k3_e3", "k5_e3", "skip"],
    "blocks.3": ["k3_e3", "skip"],
}
#: Logits that the search ends at.
DECIDED = {
    "blocks.0": [2.0, -1.0],
    "blocks.1": [0.5, 3.0, 1.0, -2.0],
    "blocks.2": [-1.0, 0.0, 0.5, 2.5],
    "blocks.3": [1.5, 0.2],
}
SEARCH_STEPS = 200


def event_of_search(step: int, collapse: bool = False) -> dict[str, Any]:
    """Return what a method records at ``step`` of :data:`SEARCH_STEPS`, with the true figures."""
    done = step / SEARCH_STEPS
    probabilities = {}
    for choice, logits in DECIDED.items():
        names = CHOICES[choice]
        aim = [4.0 * (n == "skip") for n in names] if collapse else logits
        weights = [math.exp(done * value) for value in aim]
        if choice == "blocks.1" and done >= 0.5:
            weights[0] = 0.0
        probabilities[choice] = [w / sum(weights) for w in weights]
    return {
        "method": "fbnet",
        "step": step,
        "steps": SEARCH_STEPS,
        "loss": 2.3 * math.exp(-done) + 0.01 * math.sin(step),
        "val_loss": 2.4 * math.exp(-0.9 * done),
        "val_accuracy": 0.1 + 0.6 * done,
        "expected": {"latency_ms": 0.9 - 0.31 * done, "macs": 5.1e6 - 2e6 * done},
        "budget": {"latency_ms": 0.6},
        "entropy": mean_entropy(probabilities),
        "temperature": 5.0 * 0.2**done,
        "skip_share": skip_share(probabilities, CHOICES),
        "seconds": 0.25 * step,
        "probabilities": probabilities,
    }


def record_search(run: Run, first: int, last: int, collapse: bool = False) -> list[float]:
    """Record every tenth step as a method does; return the shares of skips."""
    shares: list[float] = []
    run.record("supernet", "fbnet/supernet", method="fbnet", choices=CHOICES)
    for step in range(first, last + 1, 10):
        event = event_of_search(step, collapse)
        shares.append(event["skip_share"])
        event["collapsing"] = collapsed(shares)
        run.record("search", f"fbnet/search/{step}", **event)
    return shares


@pytest.fixture
def make_search_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a run with a search, through the run's own interface."""

    def make(
        collapse: bool = False,
        last: int = SEARCH_STEPS,
        name: str = "search",
        finished: bool = True,
    ) -> Path:
        config = {"network": "fbnet_tiny", "target": "ethos-u55-128", "method": "fbnet",
                  "budget": {"latency_ms": 0.6}}  # fmt: skip
        run = Run.open(tmp_path / name, config)
        record_search(run, 10, last, collapse)
        net = Candidate("original", metrics={"val_accuracy": 0.72}, cost={"latency_ms": 0.9})
        run.save(net)
        second = {"blocks.0": "k3_e1", "blocks.1": "k5_e3", "blocks.2": "k3_e3", "blocks.3": "skip"}
        first = {"blocks.0": "k3_e1", "blocks.1": "k3_e3", "blocks.2": "skip", "blocks.3": "k3_e3"}
        for i, (architecture, accuracy, latency_ms) in enumerate(
            ((first, 0.71, 0.59), (second, 0.70, 0.55)), start=1
        ):
            run.save(
                Candidate(
                    f"fbnet-{i}", architecture=architecture, step=i, parent="original",
                    metrics={"val_accuracy": accuracy}, cost={"latency_ms": latency_ms},
                )
            )  # fmt: skip
        if finished:
            run.record("finished", "finished")
        run.close()
        return run.folder

    return make


@pytest.fixture
def search_run(make_search_run: Callable[..., Path]) -> Path:
    """A finished run with one search."""
    return make_search_run()


@pytest.fixture
def search_event() -> Callable[..., dict[str, Any]]:
    """Return the function that gives what a method records at a step."""
    return event_of_search
