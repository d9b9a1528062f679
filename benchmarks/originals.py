# SPDX-License-Identifier: Apache-2.0
"""The trained networks that :mod:`benchmarks.side_by_side` starts from, and what they cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contest import Opponent
from benchmarks.recovering import RecoverJob, finished
from benchmarks.resnet8 import network
from chipfit.errors import BadInput
from chipfit.files import read_state, write_bytes, write_state
from chipfit.flow.calibration import calibration_factor
from chipfit.graph.capture import capture
from chipfit.runs.candidate import ORIGINAL
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.tasks import Task
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.workers import WorkerPool

#: Of weights and data.
SEED = 0


def short_id(*settings: Any) -> str:
    """Return a short identity of settings."""
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Original:
    """A network to train once.

    Args:
        net: Its name.
        epochs: Of its training; the recipe's where 0.
        folder: Where it is kept; names all of this and the data.
    """

    net: str
    epochs: float
    folder: Path

    @classmethod
    def of(cls, net: str, data: str, epochs: float, store: Path) -> Original:
        """Name the folder."""
        place = store / data / net.replace("/", "-").replace(":", "-")
        return cls(net, epochs, place / f"original-{short_id(net, data, epochs)}")

    @property
    def file(self) -> Path:
        """Of the figures."""
        return self.folder / "original.json"

    @property
    def weights(self) -> Path:
        """Of the network."""
        return self.folder / "weights.safetensors"

    def read(self) -> dict[str, Any]:
        """Return ``val``, ``test`` and ``int8_test``, and ``costs`` by target."""
        return dict(json.loads(self.file.read_text()))

    def exported(self, target: Target) -> Path | None:
        """Return the file that a target runs; none where it runs no files."""
        names = {"tflite": "model.tflite", "onnx": "model.onnx"}
        return self.folder / names[target.file_format] if target.file_format in names else None


def train_original(task: Task, job: Original) -> dict[str, Any]:
    """Train, export and test; a training that was cut off continues."""
    recipe = task.recipe.replace(epochs=job.epochs) if job.epochs else task.recipe
    net = network(job.net, task, SEED)
    trained = fit_model(
        net, task, recipe, seed=SEED, checkpoint=job.folder / "training.safetensors"
    )
    write_state(job.weights, net.state_dict())
    any_target = create("analytic")
    done = finished(
        Bench(net, task), RecoverJob(ORIGINAL, net, recipe, SEED, any_target, job.folder)
    )
    figures = {name: done[name] for name in ("val", "test", "int8_test")}
    found = {**figures, "images": trained.images, "cpu_s": trained.seconds, "costs": {}}
    write_bytes(job.file, (json.dumps(found) + "\n").encode())
    return found


def train_originals(
    task: Task, jobs: Sequence[Original], workers: int, say: Callable[[str], None]
) -> None:
    """Train those that are not there yet."""
    waiting = [job for job in jobs if not job.file.is_file()]
    with WorkerPool(workers, task) as pool:
        for at, found in pool.map(train_original, waiting):
            say(f"trained {waiting[at].net}: test {found['test']:.4f}")


def cost_of_original(original: Original, target: Target, task: Task) -> Mapping[str, float]:
    """Return the true cost of the original, as exported where the target runs files; asked once.

    Raises:
        BadInput: The target measures, but no file of a kind that is exported.
    """
    found = original.read()
    if target.spec not in found["costs"]:
        file = original.exported(target)
        if file is None and target.provenance == "measured":
            raise BadInput(f"{target.name} runs neither tflite nor onnx files", "another target")
        net = network(original.net, task).eval()
        net.load_state_dict(read_state(original.weights))
        cost = target.cost_file(file) if file else target.cost(capture(net, task.example_input()))
        total = cost.total
        found["costs"][target.spec] = dict(total.values)
        write_bytes(original.file, (json.dumps(found) + "\n").encode())
    return dict(found["costs"][target.spec])


def opponent_of(
    original: Original, target: Target, task: Task, table: Path, key: str, pool: WorkerPool,
    say: Callable[[str], None],
) -> Opponent:  # fmt: skip
    """Return what all contests on a network and a target share; measures where it is measured.

    Raises:
        BadInput: The target does not tell the cost that budgets are to bound.
    """
    cost = cost_of_original(original, target, task)
    if key not in cost:
        raise BadInput(f"{target.name} does not tell {key}", f"--key: {', '.join(cost)}")
    metrics = {f"val_{task.metric}": original.read()["val"]}
    found = Opponent(
        original.net,
        original.weights,
        metrics,
        target.spec,
        cost,
        target.provenance,
        key,
        1.0,
        table,
    )
    if target.provenance == "measured":
        place = original.folder / f"calibration-{short_id(target.spec)}"
        run = Run.open(place, {"target": target.spec, "fingerprint": target.fingerprint})
        say(f"calibrating {original.net} on {target.name}")
        asked = found.problem(task, found.build(task), pool, cost[key])
        found = replace(found, calibration=calibration_factor(asked, run))
        run.close()
    return found
