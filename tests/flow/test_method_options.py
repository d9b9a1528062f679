import pytest

from chipfit.errors import BadInput, UnknownName
from chipfit.flow.settings import Settings, method_options


class Options:
    defaults = {"steps": 4, "rate": 0.5, "hard": False, "rule": "best", "kernels": (3, 5)}


def read(**given):
    return method_options(Options(), Settings(method="one", method_options=given))


def test_values_are_of_the_kind_of_their_defaults():
    assert read() == Options.defaults
    assert read(kernels=7)["kernels"] == (7,)
    assert read(kernels=[3, 7])["kernels"] == (3, 7)
    assert read(rate=1)["rate"] == 1.0 and isinstance(read(rate=1)["rate"], float)
    assert read(steps=8.0)["steps"] == 8 and isinstance(read(steps=8.0)["steps"], int)


@pytest.mark.parametrize(
    "wrong", [{"steps": 1.5}, {"steps": "many"}, {"steps": True}, {"rate": "fast"}, {"hard": 1},
              {"rule": 3}],
)  # fmt: skip
def test_values_of_another_kind_are_refused(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        read(**wrong)


def test_unknown_options_are_named():
    with pytest.raises(UnknownName):
        read(step=3)
