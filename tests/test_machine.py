# SPDX-License-Identifier: Apache-2.0
import pytest

from chipfit import machine


@pytest.fixture
def processor(monkeypatch):
    """Let the processor be another one."""

    def pretend(**fields):
        monkeypatch.setattr(machine, "_field", lambda name: fields.get(name.replace(" ", "_"), ""))
        machine.cpu_name.cache_clear()
        machine.cpu_flags.cache_clear()

    yield pretend
    monkeypatch.undo()
    machine.cpu_name.cache_clear()
    machine.cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("flags", "vnni"),
    [("fma avx2", False), ("avx2 avx_vnni", True), ("avx512f avx512_vnni", True), ("", False)],
)
def test_vnni_is_read_from_the_flags(processor, flags, vnni):
    processor(flags=flags)
    assert machine.has_vnni() is vnni


def test_arm_processors_have_dot_products(processor):
    processor(Features="fp asimd asimddp")
    assert machine.has_vnni()


def test_models_behind_one_name_are_told_apart(processor):
    processor(model_name="AMD EPYC", cpu_family="25", model="1")
    first = machine.cpu_name()
    processor(model_name="AMD EPYC", cpu_family="25", model="17")
    assert first == "AMD EPYC (family 25 model 1)"
    assert machine.cpu_name() != first
    processor()
    assert machine.cpu_name()
