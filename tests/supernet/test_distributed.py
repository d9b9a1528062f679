"""Two processes by torchrun against one; run as a program, this is what ``torchrun`` starts."""

import os
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit import ranks
from chipfit.blocks.registry import create_block
from chipfit.errors import BadInput
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation, space_of
from chipfit.supernet.bilevel_rules import DartsRule
from chipfit.supernet.gate_rule import GateRule
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.mixture import GumbelSoftmax
from chipfit.supernet.phased_pruning import PhasedPruning
from chipfit.supernet.phased_pruning import Pruning as Pruned
from chipfit.supernet.policy_rule import PolicyRule
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.supernet import Supernet
from chipfit.supernet.tiered_pruning import TieredPruning, Tiers
from chipfit.supernet.windowed_supernet import WindowedSupernet
from chipfit.tasks.wrapped import WrappedTask

STEPS = 5
BLOCK = "inverted_residual"
#: Odd: two processes have shares of 8 and 7 images.
BATCH = 15


class Interrupted(Exception):
    pass


class Double(WrappedTask):
    """Images in double precision, so that equality can be claimed."""

    def forward(self, model, batch):
        return self._task.forward(model, batch._replace(inputs=batch.inputs.double()))

    def halves(self, seed):
        first, second = self._task.halves(seed)
        return Double(first), Double(second)


class Pruning(SearchRule):
    """Drops an operation half-way."""

    def after(self, state):
        if state.step == 2:
            choice = state.supernet.space.choices[0]
            state.supernet.prune(choice.name, [o.name for o in choice.operations[:2]])
            state.rebuild_optimizers()


def _reward():
    lock = threading.Lock()  # cannot travel to another process

    def reward(losses, rows):
        with lock:
            return -losses - 0.1 * rows.sum(1)

    return reward


def _decide():
    lock = threading.Lock()

    def decide(state, phase):
        with lock:
            return Pruned([[0, 2], [1, 2, 3]], [np.array([0.5, 0, 0.5, 0]), np.full(4, 0.25)])

    return decide


def _say():
    lock = threading.Lock()

    def say(line):
        with lock:
            print(line)

    return say


RULES = {
    "gumbel": lambda: Pruning(GumbelSoftmax()),
    "gates": lambda: GateRule(2),
    "reinforce": lambda: PolicyRule(_reward(), samples=3),
    "phases": lambda: PhasedPruning((1.0, 1.0), _decide()),
    "tiers": lambda: TieredPruning(Tiers(checks=2), lambda scores: [0, 0], _say()),
    "darts": lambda: DartsRule(2, curvature_every=3),
}


def _net():
    stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))
    blocks = {"a": create_block(BLOCK, 8, 8, 1), "b": create_block(BLOCK, 8, 12, 2)}
    net = nn.Sequential(OrderedDict({"stem": stem, **blocks, "head": head}))
    choices = []
    for place, shape in (("a", (8, 8, 1)), ("b", (8, 12, 2))):
        options = {"k3_e1": {"expansion": 1}, "k3_e2": {"expansion": 2}, "k5": {"kernel": 5}}
        swaps = [Operation(n, (Swap(place, BLOCK, *shape, o),)) for n, o in options.items()]
        choices.append(BlockChoice(place, (place,), (Operation(KEEP), *swaps)))
    net.block_space = BlockSpace(tuple(choices))
    return net


def search(name, checkpoint=None, stop=None):
    """Return the final numbers of a search in double precision."""
    torch.manual_seed(0)
    net = _net()
    kind = WindowedSupernet if name == "tiers" else Supernet
    supernet = kind(net, space_of(net)).double()
    lock = threading.Lock()

    def expected(p):
        with lock:
            return (p[0] * torch.arange(4)).sum() * (1 + p[1][1])

    pressure = Pressure("constraint", {"macs": expected}, {"macs": 0.5}).double()
    task = Double(cf.tasks.classification("digits"))
    settings = LoopSettings(
        STEPS, BATCH, warmup=0.2, temperatures=(2.0, 0.5), record_steps=2, checkpoint_steps=2
    )
    state = SearchState(supernet, task, pressure, settings, 0)

    def record(state, seconds):
        # What the first process does alone must not wait for others.
        state.pressure.expected(state.supernet.probabilities())
        state.supernet.fix(state.supernet.most_probable())
        state.supernet.train()(torch.zeros(4, 1, 8, 8, dtype=torch.float64))
        if state.step == stop:
            raise Interrupted

    search_supernet(
        state, RULES[name](), task.halves(0), checkpoint=checkpoint, on_record=record
    )  # fmt: skip
    found = dict(state.supernet.state_dict()) | dict(state.pressure.state_dict())
    return found | {n: torch.tensor(v) for n, v in state.losses.items()}


def lead(folder):
    """Do everything in the first of several processes."""
    ranks.follow()
    print("one process prints")
    for name in RULES:
        torch.save(search(name), folder / f"{name}.pt")
    torch.save(search("gumbel", folder / "killed.safetensors"), folder / "resumed.pt")
    try:
        cf.fit("tiny_mobilenet_v2", "analytic", "macs=50%", "digits", run=folder / "run")
    except BadInput as error:
        (folder / "refused").write_text(str(error))
    search("gumbel", folder / "failing.safetensors", stop=4)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(Interrupted):
        search("gumbel", folder / "killed.safetensors", stop=4)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        __file__, str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    return folder, found


@pytest.mark.parametrize("name", RULES)
def test_two_processes_give_what_one_gives(two_processes, name):
    folder, found = two_processes
    assert (folder / f"{name}.pt").exists(), found.stderr
    one, two = search(name), torch.load(folder / f"{name}.pt")
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-9, msg=lambda m: key + m)


def test_a_search_that_one_process_began_is_ended_by_two(two_processes):
    folder, _ = two_processes
    whole, resumed = torch.load(folder / "gumbel.pt"), torch.load(folder / "resumed.pt")
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-9, atol=1e-9)


def test_only_the_first_process_speaks_and_its_failure_is_the_only_one(two_processes):
    _, found = two_processes
    assert found.stdout.count("one process prints") == 1
    assert found.stderr.count("Traceback") <= 2  # ours, and that of torchrun about it
    assert "Interrupted" in found.stderr
    assert "local_rank: 0" in found.stderr.replace("(", "").replace(" :", ":")


def test_a_method_that_searches_in_one_process_says_so(two_processes):
    folder, found = two_processes
    assert "auto searches in one process" in (folder / "refused").read_text(), found.stderr
    assert not (folder / "run").exists()


if __name__ == "__main__":
    torch.set_num_threads(1)
    lead(Path(sys.argv[1]))
