# SPDX-License-Identifier: Apache-2.0
"""The main job from end to end: fit a network to an Arm Ethos-U55 at half its latency.

Trains a small MobileNetV2 on Fashion-MNIST, makes five narrower ones of it down to 50 % of its
latency on ``ethos-u55-128``, fine-tunes each with the original as teacher, exports int8 TFLite and
ONNX, compiles with Vela, checks the files against PyTorch and writes a report. Stop it at any
moment: the same command continues.

    python examples/demo.py [--method NAME] [--run DIR] [--data NAME] [--target NAME]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import chipfit as cf
from chipfit.cli.console import Terminal
from chipfit.report import family_table, write_report
from chipfit.runs import Run


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="fit a network to half its latency")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--run", default="runs/demo")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--target", default="ethos-u55-128")
    parser.add_argument("--budget", default="latency_ms=50%")
    arguments = parser.parse_args()
    start, terminal = time.monotonic(), Terminal()
    try:
        cf.tasks.classification(arguments.data)
    except cf.errors.DataUnavailable as missing:
        # A demo without a network connection is better than none; it says which data it used.
        terminal.error(missing)
        terminal.progress("running on the embedded data set 'digits' instead")
        arguments.run += "-digits"
        arguments.data = "digits"
    result = cf.fit(
        "tiny_mobilenet_v2", arguments.target, arguments.budget, arguments.data, run=arguments.run,
        method=arguments.method,
        method_options={"levels": 5} if arguments.method == "auto" else None,
        recovery_epochs=1.0,
        members=6,
        progress=terminal.progress,
        command=f"python examples/demo.py --method {arguments.method} --run {arguments.run}",
    )  # fmt: skip
    report = write_report(arguments.run)
    terminal.out.print(family_table(arguments.run, format="rich"), soft_wrap=True)
    best = result.member("best")
    checked = cf.verify(result.folder / best.candidate.files["tflite"], arguments.target,
                        against=f"{arguments.run}:{best.id}") if arguments.target.startswith(
                            "ethos") else None  # fmt: skip
    limit = ", ".join(
        f"{k} {v:.4g}" for k, v in (result.budget.limits if result.budget else {}).items()
    )
    terminal.out.print(
        f"best within {limit}: {best.id}, {best.cost['latency_ms']:.4g} ms, "
        f"test accuracy {best.metrics['test_accuracy']:.2%} in float, "
        f"{best.metrics['int8_test_accuracy']:.2%} in int8"
    )
    if checked is not None:
        error = checked.errors().get("latency_ms", float("nan"))
        terminal.out.print(
            f"its file, compiled again: {checked.cost.total['latency_ms']:.4g} ms "
            f"(the cost table said {error:+.2%} of that); same class as PyTorch on "
            f"{checked.top1_agreement:.2%} of the images"
        )
    stages(Path(arguments.run), terminal)
    terminal.out.print(f"{time.monotonic() - start:.0f} s in all; open {report}")


def stages(folder: Path, terminal: Terminal) -> None:
    """Print time and peak memory of every stage of a run."""
    totals: dict[str, list[float]] = {}
    for event in Run.read(folder).journal:
        if event["event"] == "stage":
            entry = totals.setdefault(event["name"], [0.0, 0.0])
            entry[0] += event["seconds"]
            entry[1] = max(entry[1], event["peak_rss_bytes"] / 2**20)
    rows = [{"stage": n, "seconds": s, "peak memory MiB": round(m)} for n, (s, m) in totals.items()]
    terminal.table(rows, ["stage", "seconds", "peak memory MiB"])


if __name__ == "__main__":
    main()
