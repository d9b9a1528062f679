# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights on real photographs; both are fetched once and stay in the user's cache."""

from dataclasses import replace

import pytest
import torch

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.flow.network import load_network
from chipfit.nets.preprocessing import Preprocessing
from chipfit.nets.pretrained import CLASSIFIER, PRETRAINED, efficientnet_names, load_pretrained
from chipfit.tasks.data.imagenet_photos import imagenet_photos

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@pytest.fixture(scope="module")
def photos(fetched):
    return fetched(imagenet_photos)


@pytest.fixture(scope="module")
def lite0(fetched):
    return fetched(lambda: cf.nets.create("efficientnet_lite0", weights="imagenet")).eval()


def _evaluate(net, photos, preprocessing):
    """Return correct first guesses, correct among five, and the mean log-likelihood."""
    labels = torch.tensor([photo.label for photo in photos])
    with torch.no_grad():
        logits = net(torch.cat([preprocessing(photo.pixels) for photo in photos]))
    guesses = logits.topk(5).indices == labels[:, None]
    likelihood = logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()
    return int(guesses[:, 0].sum()), int(guesses.sum()), float(likelihood)


def test_mobilenet_v2_names_the_photographs(fetched, photos):
    net = fetched(lambda: cf.nets.create("mobilenet_v2", weights="imagenet")).eval()
    assert net.fresh_parameters == ()
    first, five, _ = _evaluate(net, photos, net.preprocessing)
    assert first >= 17
    assert five >= 19


def test_efficientnet_lite0_wants_its_own_normalisation(photos, lite0):
    first, five, likelihood = _evaluate(lite0, photos, lite0.preprocessing)
    assert first >= 17
    assert five >= 18
    mean, std = IMAGENET
    wrong = replace(lite0.preprocessing, mean=mean, std=std)
    first_wrong, _, likelihood_wrong = _evaluate(lite0, photos, wrong)
    assert first_wrong <= 16
    assert likelihood_wrong < likelihood - 0.2


def test_every_tensor_of_the_file_is_loaded(lite0):
    found = PRETRAINED["efficientnet_lite0"]
    file = torch.load(found.file.fetch(), weights_only=True)
    state = lite0.state_dict()
    renamed = found.renamed(file)
    assert len(renamed) == len(file) == len(state)
    assert all(torch.equal(renamed[key], state[key]) for key in state)
    assert torch.equal(file["_blocks.0._project_conv.weight"], state["features.1.conv.1.weight"])
    assert torch.equal(file["_blocks.7._bn1.running_var"], state["features.8.conv.1.1.running_var"])


def test_another_number_of_classes_draws_a_classifier_alone(lite0):
    name = "efficientnet_lite0:weights=imagenet"
    net = cf.nets.create(name, num_classes=7, input_shape=(1, 3, 128, 96), seed=3)
    drawn = cf.nets.create("efficientnet_lite0", num_classes=7, input_shape=(1, 3, 128, 96), seed=3)
    assert net.fresh_parameters == CLASSIFIER
    assert net.preprocessing.size == (128, 96)
    for key, tensor in net.state_dict().items():
        same = drawn if key in CLASSIFIER else lite0
        assert torch.equal(tensor, same.state_dict()[key]), key


def test_a_network_is_trained_only_with_all_of_its_weights(lite0):
    whole = load_network("efficientnet_lite0", weights="imagenet")
    assert whole.trained
    assert torch.equal(whole.net.classifier[1].weight, lite0.classifier[1].weight)
    assert not load_network("efficientnet_lite0", weights="imagenet", num_classes=10).trained
    assert not load_network("efficientnet_lite0").trained


def test_weights_that_do_not_fit_are_refused(lite0):
    net = cf.nets.create("efficientnet_lite0", in_channels=1)
    with pytest.raises(BadInput, match=r"features\.0\.0\.weight: \(32, 3, 3, 3\) in the file"):
        load_pretrained(net, "efficientnet_lite0", "imagenet")
    net = cf.nets.create("efficientnet_lite1")
    with pytest.raises(BadInput, match=r"features\.10\.conv\.0\.0\.weight: \(672"):
        load_pretrained(net, "efficientnet_lite0", "imagenet")


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet18", "imagenet"), ("mobilenet_v2", "imagenette")]
)
def test_unknown_weights_are_refused(name, weights):
    with pytest.raises(BadInput, match="has no weights"):
        cf.nets.create(name, weights=weights)


def test_weights_are_named_once():
    with pytest.raises(BadInput, match="weights of net .* is given twice"):
        cf.nets.create("mobilenet_v2:weights=imagenet", weights="imagenet")


def test_only_networks_of_the_zoo_have_imagenet_weights():
    with pytest.raises(BadInput, match="no net of the zoo"):
        load_network(torch.nn.Conv2d(3, 3, 1), weights="imagenet")


def test_unknown_tensors_are_refused():
    tensor = torch.zeros(1)
    with pytest.raises(BadInput, match=r"_blocks\.0\._se_reduce\.weight"):
        efficientnet_names({"_blocks.0._se_reduce.weight": tensor})


def test_preprocessing_cuts_the_centre_without_resampling_where_sizes_fit():
    image = torch.randint(256, (3, 256, 300), generator=torch.Generator().manual_seed(0))
    image = image.to(torch.uint8)
    mean, std = IMAGENET
    done = Preprocessing((224, 224), 224 / 256, "bilinear", mean, std)(image)
    cut = image[:, 16:240, 38:262].float()
    for channel in range(3):
        expected = (cut[channel] - mean[channel]) / std[channel]
        assert torch.equal(done[0, channel], expected)


@pytest.mark.parametrize("shape", [(3, 17, 900), (3, 900, 17), (3, 5, 5)])
def test_preprocessing_gives_the_size_for_any_image(shape):
    flat = torch.full(shape, 191, dtype=torch.uint8)
    done = Preprocessing((32, 48), 0.875, "bicubic", (127.0,) * 3, (128.0,) * 3)(flat)
    assert done.shape == (1, 3, 32, 48)
    assert torch.equal(done, torch.full((1, 3, 32, 48), 0.5))


@pytest.mark.parametrize("image", [torch.zeros(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8)])
def test_preprocessing_refuses_other_images(image):
    with pytest.raises(BadInput, match="uint8"):
        PRETRAINED["mobilenet_v2"].preprocessing(image)
