"""Replacements learn from the activations of the teacher, each by itself."""

import math

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.blocks.registry import create_block
from chipfit.errors import BadInput, RunMismatch, StorageError
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation
from chipfit.space.replacements import Pool, replacement_space
from chipfit.supernet.blockwise import BlockwiseSettings, distil_blocks
from chipfit.supernet.blockwise_score import held_out_batches, mean_loss, replacement_losses
from chipfit.supernet.blockwise_store import ReplacementStore
from chipfit.supernet.blockwise_student import Replacement, match_scale, relative_error
from chipfit.supernet.blockwise_taps import tapped

SETTINGS = BlockwiseSettings(7, 16, calibration=64, checkpoint_steps=2)


class Interrupted(Exception):
    pass


class Own(nn.Module):
    """Blocks that work in place, as many do."""

    def __init__(self):
        super().__init__()

        def unit(i, o, stride=1):
            return nn.Sequential(
                nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
            )

        self.layers = nn.Sequential(unit(1, 8), unit(8, 8), unit(8, 16, 2))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


@pytest.fixture(scope="module")
def task():
    return cf.tasks.classification("digits")


@pytest.fixture(scope="module")
def teacher(task):
    torch.manual_seed(0)
    net = Own()
    for _ in range(3):  # statistics that are not those of a fresh batch norm
        net(next(iter(task.train_batches(32, 0, 0))).inputs)
    return net.eval()


@pytest.fixture(scope="module")
def space(teacher, task):
    pool = Pool(("skip", "conv", "separable", "low-rank"), (3,))
    return replacement_space(teacher, torch.zeros(task.input_shape), pool)


def all_of(space):
    return [Replacement(c, o.name) for c in space for o in c.operations]


def states(results):
    return [{n: v.clone() for n, v in m.state_dict().items()} for r in results for m in r.modules]


def same(one, two):
    return all(
        a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture(scope="module")
def distilled(teacher, task, space):
    before = {n: v.clone() for n, v in teacher.state_dict().items()}
    found = distil_blocks(teacher, task, all_of(space), SETTINGS, seed=3)
    assert all(torch.equal(v, before[n]) for n, v in teacher.state_dict().items())
    return found


def test_taps_see_what_enters_and_leaves_even_where_blocks_work_in_place(teacher):
    seen = {}
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        with tapped(teacher, ["layers.1", "layers.2"], lambda n, a, b: seen.update({n: (a, b)})):
            teacher(x)
        enters = teacher.layers[0](x.clone())
        assert torch.equal(seen["layers.1"][0], enters)
        assert torch.equal(seen["layers.1"][1], teacher.layers[1](enters.clone()))
        assert torch.equal(seen["layers.2"][0], seen["layers.1"][1])
        seen.clear()
        teacher(x)
    assert not seen
    with pytest.raises(BadInput, match="layers.7"), tapped(teacher, ["layers.7"], print):
        pass


def test_the_teachers_own_block_has_no_error_and_the_others_learn(distilled, space, teacher, task):
    errors = {
        (r.choice.name, r.operation): d.error for r, d in zip(all_of(space), distilled, strict=True)
    }
    assert all(errors[c.name, KEEP] == 0.0 for c in space)
    assert all(0 < e < math.inf for (_, name), e in errors.items() if name != KEEP)
    longer = BlockwiseSettings(80, 32, learning_rate=0.02, calibration=64)
    one = Replacement(space["layers.1"], "conv_k3")  # what the teacher has there itself
    found = distil_blocks(teacher, task, [one], longer, seed=3)[0]
    assert found.error < 0.2 < errors["layers.1", "conv_k3"]


def test_whoever_learns_beside_a_replacement_changes_nothing(distilled, space, teacher, task):
    every = all_of(space)
    for picked in ([4], [1, 4, 7]):
        alone = distil_blocks(teacher, task, [every[i] for i in picked], SETTINGS, seed=3)
        assert same(states(alone), states([distilled[i] for i in picked]))
        assert [d.error for d in alone] == [distilled[i].error for i in picked]
    other = distil_blocks(teacher, task, [every[4]], SETTINGS, seed=4)
    assert not same(states(other), states([distilled[4]]))


@pytest.mark.parametrize("stop", [1, 5])
def test_a_training_that_was_killed_ends_as_if_it_had_not_been(
    distilled, space, teacher, task, tmp_path, stop
):
    def interrupt(step):
        if step == stop:
            raise Interrupted

    path = tmp_path / "distil.safetensors"
    with pytest.raises(Interrupted):
        distil_blocks(teacher, task, all_of(space), SETTINGS, seed=3, checkpoint=path,
                      on_step=interrupt)  # fmt: skip
    assert path.exists() == (stop == 5)
    taken = []
    again = distil_blocks(teacher, task, all_of(space), SETTINGS, seed=3, checkpoint=path,
                          on_step=taken.append)  # fmt: skip
    assert taken[0] == (5 if stop == 5 else 1)
    assert same(states(again), states(distilled))
    assert [d.error for d in again] == [d.error for d in distilled]
    with pytest.raises(RunMismatch):
        distil_blocks(teacher, task, all_of(space), SETTINGS, seed=4, checkpoint=path)


def test_one_choice_for_several_places_learns_at_each(teacher, task, tmp_path):
    places = ("layers.1", "layers.2")
    swaps = (Swap(places[0], "conv_bn_act", 8, 8), Swap(places[1], "conv_bn_act", 8, 16, 2))
    choice = BlockChoice("both", places, (Operation(KEEP), Operation("1x1", swaps)))
    both = BlockSpace((choice,))
    kept, found = distil_blocks(
        teacher, task, [Replacement(choice, KEEP), Replacement(choice, "1x1")], SETTINGS, seed=3
    )
    assert kept.error == 0.0
    store = ReplacementStore(tmp_path, both)
    store.write("both", "1x1", found.modules)
    net = store.assemble(teacher, {"both": "1x1"})
    got = [net.get_submodule(place).state_dict() for place in places]
    assert same(got, [module.state_dict() for module in found.modules])


def test_the_relative_error_is_that_of_a_constant():
    torch.manual_seed(0)
    wanted = 5 + 3 * torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert relative_error(wanted, wanted) == 0
    torch.testing.assert_close(
        relative_error(wanted.mean().expand_as(wanted), wanted), wanted.new_tensor(1.0)
    )
    scaled = relative_error(7 * (wanted + 1), 7 * wanted)
    torch.testing.assert_close(scaled, relative_error(wanted + 1, wanted))


def test_one_that_diverges_is_named_and_spares_the_others(space, teacher, task):
    wild = BlockwiseSettings(4, 16, learning_rate=1e30, calibration=64)
    one = Replacement(space["layers.1"], "separable_k3")
    found = distil_blocks(teacher, task, [one, Replacement(space["layers.1"], "skip")], wild)
    assert found[0].error == math.inf
    assert 0 < found[1].error < math.inf


@pytest.mark.parametrize(
    ("block", "options"),
    [("conv_bn_act", {"act": "none"}), ("inverted_residual", {}), ("ghost_conv", {"act": "none"}),
     ("low_rank_conv", {"act": "none"}), ("bottleneck", {})],
)  # fmt: skip
@pytest.mark.parametrize("out", [8, 11])
def test_replacements_start_at_the_scale_of_what_they_replace(block, options, out):
    torch.manual_seed(0)
    x = torch.randn(16, 8, 6, 6, dtype=torch.float64)
    wanted = torch.randn(16, out, 6, 6, dtype=torch.float64) * torch.rand(out, 1, 1) * 9 + 4
    module = create_block(block, 8, out, **options).double().train()
    match_scale(module, x, wanted)
    rest = module(x) - x if getattr(module, "residual", False) else module(x)
    goal = wanted - x if getattr(module, "residual", False) else wanted
    torch.testing.assert_close(rest.mean((0, 2, 3)), goal.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rest.std((0, 2, 3)), goal.std((0, 2, 3)), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1, "batch_size": 0},
                                   {"steps": 1, "learning_rate": 0.0}])  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadInput):
        BlockwiseSettings(**wrong)


@pytest.fixture(scope="module")
def store(distilled, space, tmp_path_factory):
    made = ReplacementStore(tmp_path_factory.mktemp("store"), space)
    for r, d in zip(all_of(space), distilled, strict=True):
        made.write(r.choice.name, r.operation, d.modules)
    return made


def test_the_teachers_operation_everywhere_is_the_teacher(store, space, teacher, task):
    net = store.assemble(teacher, {c.name: KEEP for c in space})
    assert same([net.state_dict()], [teacher.state_dict()])
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(net(x), teacher(x))
    batches = held_out_batches(task, 64, 32)
    assert len(batches) == 2
    for choice in space:
        assert replacement_losses(teacher, task, store, choice.name, [KEEP], batches) == [
            mean_loss(teacher, task, batches)
        ]


def test_networks_are_put_together_from_what_was_trained(store, space, teacher, distilled, task):
    architecture = {c.name: KEEP for c in space} | {"layers.0": "conv_k1", "layers.1": "skip"}
    net = store.assemble(teacher, architecture)
    every = {(r.choice.name, r.operation): d for r, d in zip(all_of(space), distilled, strict=True)}
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        inside = every["layers.0", "conv_k1"].modules[0](x)
        wanted = teacher.head(teacher.layers[2](inside.clone()).mean((2, 3)))
        torch.testing.assert_close(net(x), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(BadInput):
        store.assemble(teacher, architecture | {"layers.0": "magic"})


def test_what_was_not_trained_is_missed(space, teacher, tmp_path):
    empty = ReplacementStore(tmp_path, space)
    with pytest.raises(StorageError):
        empty.assemble(teacher, empty.alone("layers.0", "conv_k1"))
    kept = empty.alone("layers.1", "skip")
    assert kept == {"layers.0": KEEP, "layers.1": "skip", "layers.2": KEEP}
    assert empty.assemble(teacher, kept) is not teacher


def test_the_loss_is_the_tasks_over_all_images(teacher, task):
    batches = held_out_batches(task, 100, 32)
    with torch.no_grad():
        outputs = torch.cat([teacher(b.inputs) for b in batches])
        targets = torch.cat([b.targets for b in batches])
    wanted = nn.functional.cross_entropy(outputs, targets)
    assert mean_loss(teacher, task, batches) == pytest.approx(float(wanted), rel=1e-5)
