import pickle
import textwrap

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput, BadTask, RunMismatch, TrainingDiverged
from chipfit.flow.fit import fit
from chipfit.tasks import OwnLoop, load_task
from chipfit.train.loop import fit_model
from chipfit.train.recipe import Recipe

RECIPE = Recipe(steps=3)
FILE = """
import torch
input_shape = (1, 2, 4, 4)

def evaluate(model):
    assert not model.training
    return float(model(torch.ones(input_shape)).mean())

def finetune(model, steps):
    assert model.training
    with torch.no_grad():
        for _ in range(steps):
            for weight in model.parameters():
                weight += torch.rand_like(weight)
"""


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(48, 2))


def written(tmp_path, more="", text=FILE):
    path = tmp_path / "mine.py"
    path.write_text(text + textwrap.dedent(more))
    return str(path)


def test_a_file_with_two_functions_is_a_task_in_every_process(tmp_path):
    task = load_task(
        written(tmp_path, "higher_is_better = False\nmetric = 'error'\nnum_classes = 2\n")
    )
    for each in (task, pickle.loads(pickle.dumps(task))):
        assert (each.name, each.metric, each.higher_is_better) == ("mine", "error", False)
        assert (each.input_shape, each.num_classes) == ((1, 2, 4, 4), 2)
        assert each.evaluate(net())["error"] == task.evaluate(net())["error"]


def test_make_task_comes_first_and_missing_functions_are_named(tmp_path):
    with pytest.raises(BadTask, match=r"evaluate\(model\) and finetune\(model, steps\)"):
        load_task(written(tmp_path, text="def evaluate(model):\n    return 1.0\n"))
    both = tmp_path / "both.py"
    both.write_text(FILE + "\nfrom chipfit.tasks import classification\ndef make_task():\n    return classification('digits')\n")  # fmt: skip
    assert load_task(str(both)).name == "digits"
    with pytest.raises(BadTask, match="other"):
        load_task(f"{both}:other")


def test_training_is_the_loops_and_the_seed_decides_it(tmp_path):
    task = load_task(written(tmp_path))
    trained = []
    for seed in (1, 1, 2):
        model = net()
        before = torch.random.get_rng_state()
        result = fit_model(model, task, RECIPE, seed=seed)
        assert torch.equal(before, torch.random.get_rng_state())
        assert not model.training
        trained.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert result.steps == 3
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])
    start = torch.cat([p.flatten() for p in net().parameters()])
    assert (trained[0] - start).max() > 1.0  # three steps of up to 1 each


def test_the_original_teaches_a_loop_that_asks_for_it():
    seen = []

    def finetune(model, steps, teacher):
        seen.append((steps, teacher))

    task = OwnLoop("mine", lambda model: 1.0, finetune, input_shape=(1, 2, 4, 4), steps_per_epoch=7)
    teacher = net(1)
    fit_model(net(), task, Recipe(epochs=2), teacher=None)
    fit_model(net(), task, Recipe(epochs=2, distillation_weight=0.5), teacher=teacher)
    assert seen == [(14, None), (14, teacher)]


def test_a_finished_training_is_not_repeated(tmp_path):
    calls = []

    def finetune(model, steps):
        calls.append(steps)
        with torch.no_grad():
            model[0].bias += 1

    task = OwnLoop("mine", lambda model: 1.0, finetune, input_shape=(1, 2, 4, 4))
    place = tmp_path / "training.safetensors"
    first, again = net(), net()
    fit_model(first, task, RECIPE, checkpoint=place)
    assert fit_model(again, task, RECIPE, checkpoint=place).resumed_at == 3
    assert calls == [3]
    assert torch.equal(first[0].bias, again[0].bias)
    with pytest.raises(RunMismatch):
        fit_model(net(), task, RECIPE, seed=5, checkpoint=place)


def test_evaluation_says_the_split_and_takes_exported_files():
    def evaluate(model, split):
        assert isinstance(model.eval(), nn.Module)
        return {"dice": float(model(torch.ones(1, 2, 4, 4)).sum()), "test": float(split == "test")}

    task = OwnLoop("mine", evaluate, print, metric="dice", input_shape=(1, 2, 4, 4))
    assert task.evaluate(lambda x: x * 2, "test") == {"dice": 64.0, "test": 1.0}
    assert task.evaluate(net(), "val")["test"] == 0.0
    assert task.test_reads == 1


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda model: float("nan"), "nan"),
        (lambda model: {"a": 1.0, "b": 2.0}, r"\['a', 'b'\], not 'score'"),
        (lambda model: "good", "no number"),
        (lambda model: model.nonsense, "evaluate.*AttributeError|lambda.*AttributeError"),
    ],
)
def test_an_evaluation_that_gives_no_number_is_refused(evaluate, message):
    with pytest.raises(BadTask, match=message):
        OwnLoop("mine", evaluate, print, input_shape=(1, 2, 4, 4)).evaluate(net())


def test_what_two_functions_cannot_give_names_the_function_to_add():
    task = OwnLoop("mine", lambda model: 1.0, print, input_shape=(1, 2, 4, 4))
    with pytest.raises(BadInput, match=r"define calibration\(\)"):
        task.calibration_batches(1)
    with pytest.raises(BadInput, match=r"train_batches\(\) and criterion\(\)"):
        next(iter(task.train_batches(1, 0, 0)))
    with pytest.raises(BadInput, match=r"make_task\(\)"):
        fit_model(net(), task, RECIPE, on_gradients=lambda step: None)
    for half in task.halves(0):
        with pytest.raises(BadInput, match=r"make_task\(\)"):
            fit_model(net(), half, RECIPE)
    with pytest.raises(BadTask, match="input_shape"):
        OwnLoop("mine", lambda model: 1.0, print)
    assert torch.equal(task.example_input(), task.example_input())


def test_calibration_inputs_say_the_shape():
    inputs = torch.arange(5 * 32.0).reshape(5, 2, 4, 4)
    task = OwnLoop("mine", lambda model: 1.0, print, calibration=lambda: [inputs[:2], inputs[2:]])
    assert task.input_shape == (1, 2, 4, 4)
    assert [len(batch) for batch in task.calibration_batches(3, 2)] == [2, 2, 1]
    assert torch.equal(task.parity_inputs(4), inputs[:4])
    with pytest.raises(BadTask, match="no inputs"):
        OwnLoop("mine", lambda model: 1.0, print, calibration=lambda: [])


def test_a_loop_that_diverges_or_fails_is_reported():
    def diverge(model, steps):
        with torch.no_grad():
            model[0].bias.fill_(float("inf"))

    def fail(model, steps):
        raise KeyError("lr")

    def task(finetune):
        return OwnLoop("mine", lambda model: 1.0, finetune, input_shape=(1, 2, 4, 4))

    with pytest.raises(TrainingDiverged, match="not finite"):
        fit_model(net(), task(diverge), RECIPE)
    with pytest.raises(BadTask, match=r"fail\(\) of mine failed: KeyError"):
        fit_model(net(), task(fail), RECIPE)


def test_methods_that_need_batches_refuse_before_anything_is_trained(tmp_path):
    task = written(tmp_path, "num_classes = 2\n")
    for method in ("fbnet", "smcp"):
        with pytest.raises(BadInput, match="make_task"):
            fit(net(), "analytic", "macs=80%", task, method=method, run=tmp_path / method)
        assert not (tmp_path / method).exists()


def test_auto_needs_inputs_and_says_so_before_anything_is_trained(tmp_path):
    with pytest.raises(BadInput, match=r"define calibration\(\).*--method netadapt"):
        fit(net(), "analytic", "macs=80%", written(tmp_path), method="auto", run=tmp_path / "run")
    assert not (tmp_path / "run" / "candidates").exists()


def test_auto_solves_a_network_that_classifies_nothing(tmp_path):
    more = """
    def calibration():
        return torch.rand(32, 2, 4, 4, generator=torch.Generator().manual_seed(1))

    def finetune(model, steps):
        pass
    """
    result = fit(
        net(), "analytic", "macs=70%", written(tmp_path, more), run=tmp_path / "run", epochs=0,
        method="auto", workers=0, table=tmp_path / "costs.sqlite",
        method_options={"levels": 1, "images": 32, "rounds": 1, "tries": 2},
    )  # fmt: skip
    best = result.member("best")
    assert result.budget_met
    assert best.cost["macs"] <= 0.7 * result.member("original").cost["macs"]


@pytest.mark.parametrize("classes", [0, 2])
def test_how_far_outputs_are_from_the_originals(tmp_path, classes):
    task = load_task(written(tmp_path, f"num_classes = {classes}\n"))
    y = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert float(task.distillation(y, y, 1.0)) == 0
    if not classes:
        both = {"boxes": y + 1, "scores": (10 * y, torch.arange(3))}
        same = {"boxes": y, "scores": (10 * y, torch.arange(3))}
        assert float(task.distillation(both, same, 1.0)) == pytest.approx(0.5 * 1 / 5)
        with pytest.raises(BadInput, match="no tensor of numbers"):
            task.distillation("box", "box", 1.0)
    else:
        assert float(task.distillation(y + torch.eye(2), y, 1.0)) > 0
