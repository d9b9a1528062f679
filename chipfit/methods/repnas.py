# SPDX-License-Identifier: Apache-2.0
"""RepNAS: which parallel branches train a network of plain convolutions best.

Zhang et al., "RepNAS: Searching for Efficient Re-parameterizing Blocks", 2021, arXiv 2109.03508.
Every layer is trained as a sum of branches, of which the K best of the whole network stay, and is
then merged into one 3x3 convolution. One stage, one level: weights and gates learn from the same
training batches, with gates drawn evenly first, then by their logits, then fixed.

What branches a network was trained with does not change what it costs once merged. The budget is
therefore one on the merged network, which every K has alike; several shares of the branches are
trained, and the most accurate on validation data is kept. Against the network that came in, which
executes all of its branches, merging buys what ``changes`` says.

Our variant: training goes on from the weights of the network that came in, where the paper starts
from fresh ones; batch norms are re-estimated on training images before merging; and a batch norm,
which devices fold, stays behind each merged convolution for the long recovery that follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.cost.predict import predict_many
from chipfit.errors import TrainingDiverged
from chipfit.files import write_state
from chipfit.graph.capture import trace
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.proposals import most_accurate
from chipfit.methods.reach import cost_text
from chipfit.methods.repnas_checks import check_budget, check_settings
from chipfit.methods.repnas_network import BranchNetwork, merged_network
from chipfit.methods.repnas_places import find_places, with_branches
from chipfit.methods.repnas_records import RecordedTask, changes_of, gate_values
from chipfit.rewrite.replay import replay
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.space.branches import BranchPlace
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.jobs import training_lines
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed

#: Training images that batch norms are recalibrated with.
BATCHES, BATCH = 8, 64
NAME = "repnas-01"
Places = tuple[BranchPlace, ...]


@METHODS.register(
    "repnas",
    summary="keep the K branches that train a network best, and merge them to 3x3 convolutions",
    source="Zhang et al., 2021, arXiv 2109.03508",
)
class RepNAS:
    """The method, with the options below.

    A training takes ``epochs`` (0: the recipe's), or ``steps`` iterations where positive, at
    ``learning_rate`` (0: the recipe's) and with gradients clipped to a norm of ``gradient_clip``.
    Of it ``random_share`` is the random phase and ``search_share`` the search phase; the paper has
    15 and 35 of 150 epochs. ``shares`` of all branches are kept, one training each; the paper keeps
    0.34, and with 1.0 there is nothing to choose.

    Adam moves the logits at ``logits_rate`` with ``logits_betas``; ``logits_decay`` is their L2
    penalty, which falls to 0 over the search phase. The paper's rate of 1e-4 is for its 35 epochs
    of ImageNet; in shorter searches logits would not move.

    Trainings are judged on ``val_images`` held-out images (0: all).
    """

    defaults: Mapping[str, Any] = {
        "shares": (0.34, 1.0), "epochs": 0.0, "steps": 0, "learning_rate": 0.0,
        "gradient_clip": 5.0, "random_share": 0.1, "search_share": 0.23, "logits_rate": 0.01,
        "logits_betas": (0.5, 0.999), "logits_decay": 5e-4, "val_images": 0,
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where the merged network is over the budget; needs no trained weights."""
        self._open(problem)

    def _open(self, problem: Problem) -> tuple[dict[str, Any], Places, Cost]:
        settings = {**self.defaults, **problem.options}
        check_settings(settings)
        places = find_places(problem.net, problem.keep)
        merged = replay(problem.net, [place.swap(place.branches) for place in places]).eval()
        found = predict_many(
            [trace(merged, problem.example)], problem.target, problem.table, problem.calibration,
            pool=problem.pool,
        )  # fmt: skip
        check_budget(problem, found[0].total)
        return settings, places, found[0].total

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield the most accurate of the merged networks; all shares cost the same."""
        settings, places, cost = self._open(problem)
        results: dict[str, dict[str, Any]] = {}
        for share in sorted(dict.fromkeys(float(s) for s in settings["shares"])):
            results[f"share-{share:g}"] = self._train(problem, run, settings, places, share, cost)
        done = run.recall("repnas/step/1")
        weights = run.candidate_folder(NAME) / "short.safetensors"
        if done is None or not weights.exists():
            best = most_accurate(problem, results, dict.fromkeys(results, cost))
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_bytes(_weights(run, best).read_bytes())
            chosen = results[best]["chosen"]
            done = run.record(
                "step", "repnas/step/1", step=1, group=best, width=results[best]["width"],
                predicted=dict(cost.values), proposals=len(results), chosen=chosen,
                changes=changes_of(problem, places, chosen, cost),
                **{problem.val_metric: results[best][problem.val_metric]},
            )  # fmt: skip
            problem.progress(
                f"kept {done['width']}: {cost_text(cost)} once merged, "
                f"validation {done[problem.val_metric]:.4f}"
            )
        chosen = done["chosen"]
        yield Candidate(
            id=NAME, edits=tuple(place.swap(chosen[place.module]) for place in places),
            weights=f"candidates/{NAME}/{weights.name}", step=1, parent=ORIGINAL,
            architecture=gate_values(chosen, places), predicted=dict(done["predicted"]),
            metrics={problem.val_metric: done[problem.val_metric]}, changes=done["changes"],
        )  # fmt: skip

    def _train(
        self, problem: Problem, run: Run, settings: Mapping[str, Any], places: Places,
        share: float, cost: Cost,
    ) -> dict[str, Any]:  # fmt: skip
        """Search, train and merge with a share of the branches, once per run."""
        name = f"share-{share:g}"
        key, weights = f"repnas/step/1/{name}", _weights(run, name)
        done = run.recall(key)
        if done is not None and ("diverged" in done or weights.exists()):
            return done
        gates = sum(len(place.branches) for place in places)
        count = max(1, int(share * gates))
        label = f"repnas/{count} of {gates}"
        recipe = problem.task.recipe.replace(
            epochs=float(settings["epochs"]) or problem.task.recipe.epochs,
            steps=int(settings["steps"]) or None,
            learning_rate=float(settings["learning_rate"]) or problem.task.recipe.learning_rate,
            gradient_clip=float(settings["gradient_clip"]), distillation_weight=0.0, ema_decay=0.0,
        )  # fmt: skip
        seed = stream_seed(problem.seed, "repnas", name)
        network = BranchNetwork(
            with_branches(problem.net, places, seed), places, count,
            steps=recipe.total_steps(problem.task.steps_per_epoch(recipe.batch_size)),
            random_share=float(settings["random_share"]) if count < gates else 0.0,
            search_share=float(settings["search_share"]) if count < gates else 0.0,
            seed=seed, rate=float(settings["logits_rate"]), betas=tuple(settings["logits_betas"]),
            decay=float(settings["logits_decay"]),
        )  # fmt: skip
        task = problem.task
        if count < gates:
            task = RecordedTask(task, network, problem, run, label, count)
        try:
            fit_model(
                network, task, recipe, seed=seed,
                checkpoint=run.checkpoint_folder("repnas") / f"{name}-training.safetensors",
                on_progress=training_lines(label, problem.progress),
            )  # fmt: skip
        except TrainingDiverged as error:
            return run.record("proposal", key, step=1, group=name, diverged=error.message)
        batches = problem.task.calibration_batches(BATCHES, BATCH)
        recalibrate_batchnorm(network, batches)
        merged = merged_network(problem.net, network, batches).eval()
        write_state(weights, merged.state_dict())
        limit = int(settings["val_images"]) or None
        value = problem.task.evaluate(merged, "val", limit=limit)[problem.task.metric]
        chosen = {place: list(names) for place, names in network.chosen().items()}
        kept = sum(map(len, chosen.values()))
        done = run.record(
            "proposal", key, step=1, group=name, width=f"{kept} of {gates} branches",
            predicted=dict(cost.values), chosen=chosen, **{problem.val_metric: value},
        )  # fmt: skip
        problem.progress(f"{done['width']}: validation {value:.4f} once merged")
        return done


def _weights(run: Run, name: str) -> Path:
    return run.checkpoint_folder("repnas") / f"{name}.safetensors"
