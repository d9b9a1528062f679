import pytest
import torch

import chipfit as cf
from chipfit.errors import BadInput, RunMismatch
from chipfit.space.blocks import space_of
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.mixture import BinaryGates, GumbelSoftmax, OneHot
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.supernet import Supernet


class Interrupted(Exception):
    pass


class Pruning(SearchRule):
    """Drops an operation half-way, and has a tensor of its own."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = torch.zeros(1)

    def after(self, state):
        self.seen += 1
        if state.step == 5:
            choice = state.supernet.space.choices[0]
            state.supernet.prune(choice.name, [o.name for o in choice.operations[:2]])
            state.rebuild_optimizers()

    def tensors(self):
        return {"seen": self.seen}

    def restore_tensors(self, tensors):
        self.seen = tensors["seen"]


RULES = {
    "gumbel": lambda: Pruning(GumbelSoftmax()),
    "gates": lambda: Pruning(BinaryGates(2), OneHot(uniform=False)),
}


def run(toy_net, task, rule, checkpoint=None, stop=None, steps=9, seed=0):
    torch.manual_seed(0)
    net = toy_net()
    supernet = Supernet(net, space_of(net), seed=seed)
    pressure = Pressure(
        "constraint", {"macs": lambda p: (p[0] * torch.arange(len(p[0]))).sum()}, {"macs": 0.5}
    )
    state = SearchState(
        supernet, task, pressure,
        LoopSettings(steps, 16, warmup=0.2, temperatures=(2.0, 0.5), checkpoint_steps=2, record_steps=3),
        seed,
    )  # fmt: skip
    records = []

    def record(state, seconds):
        records.append((state.step, dict(state.losses)))
        if stop is not None and state.step >= stop:
            raise Interrupted

    search_supernet(state, rule, task.halves(seed), checkpoint=checkpoint, on_record=record)
    return state, records


@pytest.fixture(scope="module")
def task():
    return cf.tasks.classification("digits")


@pytest.mark.parametrize("name", RULES)
def test_a_search_that_was_killed_ends_as_if_it_had_not_been(toy_net, task, name, tmp_path):
    whole, records = run(toy_net, task, RULES[name]())
    path = tmp_path / "search.safetensors"
    with pytest.raises(Interrupted):
        run(toy_net, task, RULES[name](), path, stop=6)
    again, rest = run(toy_net, task, RULES[name](), path)
    assert again.step == whole.step == 9
    assert again.supernet.structure() == whole.supernet.structure()
    for n, v in whole.supernet.state_dict().items():
        assert torch.equal(v, again.supernet.state_dict()[n]), n
    assert rest[-1] == records[-1]
    assert torch.equal(whole.pressure.constraint.multipliers, again.pressure.constraint.multipliers)


def test_only_the_logits_of_what_is_left_are_trained_and_seeds_reproduce(toy_net, task):
    one, _ = run(toy_net, task, RULES["gumbel"]())
    two, _ = run(toy_net, task, RULES["gumbel"]())
    other, _ = run(toy_net, task, RULES["gumbel"](), seed=1)
    logits = [torch.cat(list(s.supernet.architecture_parameters())) for s in (one, two, other)]
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])
    assert len(one.supernet.logits(one.supernet.space.choices[0].name)) == 2


def test_in_the_warm_up_logits_stay(toy_net, task):
    torch.manual_seed(0)
    net = toy_net()
    supernet = Supernet(net, space_of(net), seed=0)
    before = [p.detach().clone() for p in supernet.architecture_parameters()]
    state = SearchState(
        supernet, task, Pressure("none", {}, {}), LoopSettings(3, 16, warmup=0.99), 0
    )
    search_supernet(state, SearchRule(GumbelSoftmax()), task.halves(0))
    assert all(torch.equal(a, b) for a, b in zip(before, supernet.architecture_parameters()))


def test_a_checkpoint_of_another_search_is_refused(toy_net, task, tmp_path):
    path = tmp_path / "search.safetensors"
    run(toy_net, task, RULES["gumbel"](), path)
    with pytest.raises(RunMismatch):
        run(toy_net, task, RULES["gumbel"](), path, steps=10)


def test_settings_out_of_range_are_refused():
    for wrong in ({"steps": 0}, {"steps": 1, "warmup": 1.0}, {"steps": 1, "learning_rate": 0.0}):
        with pytest.raises(BadInput):
            LoopSettings(**wrong)


def test_the_halves_of_a_task_share_no_image(task):
    first, second = task.halves(3)
    assert not set(first.train_indices) & set(second.train_indices)
    assert sorted([*first.train_indices, *second.train_indices]) == sorted(task.train_indices)
    from chipfit.tasks.base import Task

    parts = Task.halves(task, 3)
    seen = []
    for part in parts:
        hashes = {
            bytes(image.numpy().tobytes())
            for epoch in range(2)
            for batch in part.train_batches(16, 0, epoch, augment=False)
            for image in batch.inputs
        }
        seen.append(hashes)
        assert len(list(part.train_batches(16, 0, 0))) == part.steps_per_epoch(16)
        tail = list(part.train_batches(16, 0, 1, start=2, augment=False))
        whole = list(part.train_batches(16, 0, 1, augment=False))
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(tail, whole[2:], strict=True))
    assert not seen[0] & seen[1]
