import pytest

from chipfit.errors import BadInput
from chipfit.nets import create


def test_widths_and_depths_stand_in_a_name():
    net = create("convnext_tiny:widths=8-16-24-32,depths=1-1-2-1", input_shape=(1, 3, 32, 32))
    assert (net.widths, net.depths) == ((8, 16, 24, 32), (1, 1, 2, 1))
    shallow = create("resnet18", depths=(1, 1, 1, 1), input_shape=(1, 3, 32, 32))
    assert (shallow.widths, shallow.depths) == ((64, 128, 256, 512), (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("repvgg_a0:depths=1-2", "no stages"),
        ("resnet18:depths=1-a", "no whole numbers"),
        ("resnet18:depths=1-2", "stages"),
    ],
)
def test_numbers_that_do_not_fit_are_explained(name, message):
    with pytest.raises(BadInput, match=message):
        create(name, input_shape=(1, 3, 32, 32))
