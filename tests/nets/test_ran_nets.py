import pytest
import torch
from torch import nn

from chipfit.blocks.rep_vgg_block import RepVGGBlock
from chipfit.errors import BadInput, UnknownName
from chipfit.graph.capture import trace
from chipfit.nets import create
from chipfit.nets.convnext import CONVNEXT_T, Stages
from chipfit.nets.ran_i import RAN_I_B, RAN_I_S, RAN_I_T
from chipfit.nets.registry import read_options


def on_meta(text, **options):
    """Build without memory for the weights: only shapes matter."""
    with torch.device("meta"):
        return create(text, **options)


def macs_of(net):
    """Count by hooks on tensors without data, independently of chipfit.graph."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * module.in_channels // module.groups * kernel
        else:
            total += output.numel() * module.in_features

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    net.eval()(torch.zeros(net.input_shape, device="meta"))
    return total


def test_the_graph_counts_the_same_macs():
    net = create("ran_e_gt", input_shape=(1, 3, 64, 64)).eval()
    counted = trace(net, torch.zeros(net.input_shape)).macs
    assert counted == macs_of(on_meta("ran_e_gt", input_shape=(1, 3, 64, 64)))


def test_ran_i_stages_are_the_published_ones():
    assert CONVNEXT_T.scaled(*RAN_I_T) == Stages((5, 5, 15, 5), (64, 128, 256, 511))
    assert CONVNEXT_T.scaled(*RAN_I_S) == Stages((5, 5, 15, 5), (76, 151, 303, 606))
    assert CONVNEXT_T.scaled(*RAN_I_B) == Stages((7, 7, 21, 7), (87, 175, 350, 699))
    assert CONVNEXT_T.scaled(*RAN_I_S, 8) == Stages((5, 5, 15, 5), (72, 152, 304, 608))
    assert CONVNEXT_T.scaled(*RAN_I_B, 8) == Stages((7, 7, 21, 7), (88, 176, 352, 696))
    with pytest.raises(BadInput, match="width_multiple=0"):
        create("ran_i_tiny:width_multiple=0")


def test_ran_e_has_the_published_numbers_of_activations():
    def elements(name):
        load = trace(create(name), torch.zeros(1, 3, 224, 224))
        return sum(torch.Size(n.op.output).numel() for n in load.nodes if n.op.activation != "none")

    assert round(elements("ran_e_gt") / 1e6, 2) == 2.55
    assert round(elements("ran_e_c") / 1e6, 2) == 3.77


def test_ran_e_has_no_norm_or_activation_in_its_stem():
    net = create("ran_e_gt", activation="relu6")
    assert [type(m) for m in net.stem] == [nn.ZeroPad2d, nn.Conv2d]
    assert net.stem[1].bias is None
    assert not any(isinstance(m, nn.Hardswish) for m in net.modules())
    assert any(isinstance(m, nn.ReLU6) for m in net.modules())


def test_repvgg_merges_its_branches_and_keeps_its_outputs():
    net = create("repvgg_a0:deploy=False", num_classes=5, input_shape=(1, 3, 32, 32)).double()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.uniform_(0.5, 2.0)
            norm.running_mean.normal_(0.0, 0.2)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = net.eval()(x)
        merged = net.merge()(x)
    torch.testing.assert_close(merged, expected, rtol=1e-9, atol=1e-9)
    assert net.state_dict().keys() == create("repvgg_a0", num_classes=5).state_dict().keys()
    assert sum(isinstance(m, RepVGGBlock) for m in net.modules()) == 22


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "repvgg_a0",
            {"stage0.rbr_reparam.weight": (48, 3, 3, 3), "stage4.0.rbr_reparam.bias": (1280,),
             "linear.weight": (1000, 1280)},
        ),
        (
            "repvgg_a0:deploy=false",
            {"stage0.rbr_dense.conv.weight": (48, 3, 3, 3), "stage3.1.rbr_identity.bias": (192,),
             "stage3.0.rbr_1x1.bn.weight": (192,)},
        ),
        (
            "convnext_tiny",
            {"downsample_layers.0.0.weight": (96, 3, 4, 4), "stages.2.8.dwconv.bias": (384,),
             "downsample_layers.3.1.weight": (768, 384, 2, 2), "stages.0.0.gamma": (96,),
             "stages.3.2.pwconv1.weight": (3072, 768), "norm.weight": (768,),
             "head.bias": (1000,)},
        ),
    ],
)  # fmt: skip
def test_parameters_have_their_authors_names(name, shapes):
    state = on_meta(name).state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


def test_stochastic_depth_rises_along_the_network():
    net = on_meta("convnext_tiny", drop_path=0.4)
    rates = [block.drop_path.probability for stage in net.stages for block in stage]
    assert len(rates) == 18
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(0.4)
    assert rates == sorted(rates)


def test_options_stand_in_the_name():
    assert read_options("resnet18") == ("resnet18", {})
    assert read_options("a:b=8,c=0.5,d=true,e=relu6") == (
        "a", {"b": 8, "c": 0.5, "d": True, "e": "relu6"}
    )  # fmt: skip
    assert create("resnet18:small_stem=true,num_classes=3").fc.out_features == 3
    assert create("resnet18:small_stem=true").conv1.kernel_size == (3, 3)


def test_options_in_the_name_that_cannot_be_used_are_refused():
    for text, message in [
        ("ran_i_tiny:width_multiple", "cannot read the option"),
        ("ran_i_tiny:width_multiple=", "cannot read the option"),
        ("ran_i_tiny:width_multiple=8,width_multiple=4", "given twice"),
        ("ran_i_tiny:width_multiple=eight", "is no int"),
        ("ran_i_tiny:width_multiple=true", "is no int"),
        ("ran_i_tiny:drop_path=1.5", "drop_path"),
        ("ran_e_gt:dropout=7", "cannot be built"),
        ("ran_e_gt:activation=swosh", "swosh"),
        ("ran_e_gt:activaton=relu6", "activaton"),
        ("resnet18:num_classes=many", "is no int"),
        ("resnet18:seed=3", "seed"),
        ("convnext_tiny:width_multiple=8", "width_multiple"),
    ]:
        with pytest.raises(BadInput, match=message):
            create(text)
    with pytest.raises(BadInput, match="num_classes"):
        create("resnet18:num_classes=3", num_classes=4)
    with pytest.raises(BadInput, match="dropout"):
        create("ran_e_gt:dropout=0.1", dropout=0.2)
    with pytest.raises(UnknownName, match="ran_i_smal"):
        create("ran_i_smal:width_multiple=8")
    with pytest.raises(BadInput, match="at least 32"):
        create("convnext_tiny", input_shape=(1, 3, 31, 64))
