# SPDX-License-Identifier: Apache-2.0
"""``search_supernet``: the loop that trains weights and architecture parameters in turn.

A paper is a :class:`SearchRule`: what one step of each is, and what happens between steps. A search
that was killed continues from its checkpoint to the same result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from chipfit.errors import TrainingDiverged
from chipfit.supernet.distributed import alone, in_step, shared
from chipfit.supernet.search_checkpoint import read_search, write_search
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.tasks.base import Task
from chipfit.train.batches import endless_batches
from chipfit.train.contexts import channels_last
from chipfit.train.randomness import private_global_stream, seed_global_stream

#: Steps over which reported losses are averaged (time constant).
_WINDOW = 20
#: Called with the state and the seconds since the search was started or continued.
Record = Callable[[SearchState, float], None]


def search_supernet(
    state: SearchState,
    rule: SearchRule,
    halves: tuple[Task, Task],
    *,
    checkpoint: Path | None = None,
    on_record: Record | None = None,
) -> SearchState:
    """Run a search to its end, from its checkpoint where there is one.

    Args:
        state: At its start.
        rule: What its steps are.
        halves: Batches for the weights and for the logits (:meth:`Task.halves`).
        checkpoint: File to keep the state in.
        on_record: Called now and then, and at the end.

    Returns:
        ``state`` after its last step, the supernet in evaluation mode.

    Raises:
        TrainingDiverged: A loss became NaN or infinite; the checkpoint keeps the last good state.
        RunMismatch: The checkpoint belongs to another search.
    """
    settings = state.settings
    identity = {"seed": state.seed, "task": state.task.name, "settings": asdict(settings)}
    with private_global_stream(), channels_last(state.supernet):
        if checkpoint is not None:
            read_search(checkpoint, identity, state, rule)
        with in_step(state, rule, halves):
            state.supernet.train()
            size, seed = settings.batch_size, state.seed
            weight_batches = endless_batches(halves[0], size, seed, state.step)
            done = 0 if state.step == 0 else _architecture_steps(settings, state.step)
            architecture_batches = endless_batches(
                halves[1], settings.batch_size, state.seed + 1, done
            )
            started = time.perf_counter()
            while state.step < settings.steps:
                seed_global_stream(state.seed, state.step)
                rate = 0.5 * (1 + math.cos(math.pi * state.step / settings.steps))
                for group in state.weight_optimizer.param_groups:
                    group["lr"] = settings.learning_rate * rate
                state.weight_batch = next(weight_batches)
                with shared(state):
                    if not state.warming and state.step % settings.every == 0:
                        found = rule.architecture_step(state, next(architecture_batches))
                        _average(state, "val_loss", found)
                    _average(state, "loss", rule.weight_step(state, state.weight_batch))
                rule.after(state)
                state.step += 1
                last = state.step == settings.steps
                if on_record and (last or state.step % settings.record_steps == 0):
                    with alone():
                        on_record(state, time.perf_counter() - started)
                if checkpoint is not None and (last or state.step % settings.checkpoint_steps == 0):
                    write_search(checkpoint, identity, state, rule)
    state.supernet.eval()
    return state


def _architecture_steps(settings: LoopSettings, step: int) -> int:
    """Return how many steps of the logits come before ``step``."""
    warm = settings.warmup * settings.steps
    return sum(1 for s in range(0, step, settings.every) if s >= warm)


def _average(state: SearchState, name: str, value: float) -> None:
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"the search diverged at step {state.step} of {state.settings.steps}:"
            f" {name} is {value}",
            "lower learning_rate",
        )
    old = state.losses.get(name, value)
    state.losses[name] = old + (value - old) / _WINDOW
