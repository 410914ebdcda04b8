import itertools
import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from lib.config import RunConfig
from lib.errors import StudyError
from lib.models import (
    ARCHITECTURES,
    BasicBlock,
    HalfScale,
    SEGate,
    StaticGate,
    build_model,
    multiply_adds,
    parameter_count,
    scaled,
)
from lib.study import load_study

PLAIN = 11_173_962
SAME_WIDTHS = [name for name in ARCHITECTURES if name != "wide_resnet18"]


def build(architecture, seed=0, width=0.25, reduction=4, classes=10):
    config = RunConfig(arm=architecture, seed=seed, architecture=architecture, width=width, reduction=reduction)
    return build_model(config, classes)


def images(count=4):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def copy_in_order(source, target):
    """Copies weights and statistics between two networks that list the same layers under other names."""
    values, names = source.state_dict().values(), target.state_dict()
    assert [value.shape for value in values] == [value.shape for value in names.values()]
    target.load_state_dict(dict(zip(names, values, strict=True)))


def torchvision_resnet18():
    """torchvision's network for 224 pixels, with the stem for 32 pixels."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


@pytest.mark.parametrize(
    ("architecture", "extra"),
    [
        ("resnet18", 0),
        ("se_resnet18", 87_040),
        ("se_skip_resnet18", 87_040),
        ("static_gate_resnet18", 1_920),
        ("half_scale_resnet18", 0),
        ("static_gate_skip_resnet18", 1_920),
        ("half_scale_skip_resnet18", 0),
        ("wide_resnet18", 90_927),
    ],
)
def test_parameters_at_full_width(architecture, extra):
    with torch.device("meta"):
        model = ARCHITECTURES[architecture](1.0, 16, 10)
    assert parameter_count(model) == PLAIN + extra


def test_every_arm_of_the_study_has_its_architecture():
    assert set(ARCHITECTURES) >= {
        "resnet18",
        "se_resnet18",
        "se_skip_resnet18",
        "static_gate_resnet18",
        "half_scale_resnet18",
        "static_gate_skip_resnet18",
        "half_scale_skip_resnet18",
        "wide_resnet18",
    }


def test_hidden_widths_of_the_gates():
    with torch.device("meta"):
        model = ARCHITECTURES["se_resnet18"](1.0, 16, 10)
    gates = [module for module in model.modules() if isinstance(module, SEGate)]
    assert [gate.squeeze.out_features for gate in gates] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert all(layer.bias is None for gate in gates for layer in (gate.squeeze, gate.excite))


@pytest.mark.parametrize(("architecture", "extra"), [("resnet18", 0), ("se_resnet18", 87_040)])
def test_multiply_adds_at_full_width(architecture, extra):
    stem, first_stage, other_stages, head = 1_769_472, 150_994_944, 3 * 134_217_728, 5_120
    assert multiply_adds(build(architecture, width=1.0, reduction=16)) == (
        stem + first_stage + other_stages + head + extra
    )


def test_multiply_adds_leaves_the_network_as_it_was():
    model, untouched = build("se_resnet18"), build("se_resnet18")
    multiply_adds(model)
    assert model.training
    for name, value in untouched.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("training", [False, True])
def test_resnet18_equals_torchvision(training):
    theirs = torchvision_resnet18()
    ours = build("resnet18", width=1.0)
    copy_in_order(theirs, ours)
    outputs = [model.train(training)(images(2)) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for mine, reference in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, reference)


def test_gradients_of_resnet18_equal_torchvision():
    theirs = torchvision_resnet18()
    ours = build("resnet18", width=1.0)
    copy_in_order(theirs, ours)
    for model in (ours, theirs):
        functional.cross_entropy(model(images(2)), torch.tensor([3, 8])).backward()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-3, atol=1e-4)


def reference_gate(gate):
    """torchvision's gate with the weights of ours and zero biases."""
    hidden, channels = gate.squeeze.weight.shape
    reference = torchvision.ops.SqueezeExcitation(channels, hidden)
    with torch.no_grad():
        for layer, weight in ((reference.fc1, gate.squeeze.weight), (reference.fc2, gate.excite.weight)):
            layer.weight.copy_(weight[:, :, None, None])
            layer.bias.zero_()
    return reference


def test_gate_equals_torchvision():
    gate = SEGate(32, 4)
    features = torch.randn(3, 32, 5, 7)
    torch.testing.assert_close(gate(features), reference_gate(gate)(features))


@pytest.mark.parametrize("gate_on_skip", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_gated_block_and_its_gradients_equal_a_plain_composition(gate_on_skip, stride):
    block = BasicBlock(8, 8, stride, lambda channels: SEGate(channels, 2), gate_on_skip)
    gate = reference_gate(block.gate)
    one = torch.randn(4, 8, 6, 6, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(other)))))
    skip = block.shortcut(other)
    expected = torch.relu(residual + gate(skip) if gate_on_skip else gate(residual) + skip)
    output = block(one)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(output)
    (output * weights).sum().backward()
    mine = block.gate.squeeze.weight.grad.clone()
    (expected * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(mine, gate.fc1.weight.grad.squeeze((2, 3)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("architecture", ["se_resnet18", "se_skip_resnet18"])
def test_gates_forced_to_one_give_the_plain_network(monkeypatch, architecture, training):
    monkeypatch.setattr(SEGate, "gate", lambda self, x: torch.ones(x.shape[:2]))
    assert torch.equal(build(architecture).train(training)(images()), build("resnet18").train(training)(images()))


@pytest.mark.parametrize("block", [0, 2])
def test_se_closes_the_residual_branch(monkeypatch, block):
    monkeypatch.setattr(SEGate, "gate", lambda self, x: torch.zeros(x.shape[:2]))
    block = build("se_resnet18").eval().blocks[block]
    features = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(features), torch.relu(block.shortcut(features)))


@pytest.mark.parametrize("block", [0, 2])
def test_se_skip_closes_the_skip_path(monkeypatch, block):
    monkeypatch.setattr(SEGate, "gate", lambda self, x: torch.zeros(x.shape[:2]))
    block = build("se_skip_resnet18").eval().blocks[block]
    features = torch.randn(2, 16, 8, 8)
    expected = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(features))))))
    assert torch.equal(block(features), expected)


@pytest.mark.parametrize("place", ["", "_skip"])
def test_half_scale_is_se_without_an_excitation(place):
    gated = build(f"se{place}_resnet18").eval()
    for module in gated.modules():
        if isinstance(module, SEGate):
            nn.init.zeros_(module.excite.weight)
    torch.testing.assert_close(gated(images()), build(f"half_scale{place}_resnet18").eval()(images()))


@pytest.mark.parametrize("place", ["", "_skip"])
def test_static_gate_starts_as_half_scale(place):
    static, half = (build(f"{kind}{place}_resnet18").eval() for kind in ("static_gate", "half_scale"))
    torch.testing.assert_close(static(images()), half(images()))


def test_the_skip_path_alone_is_halved():
    block = build("half_scale_skip_resnet18").eval().blocks[0]
    features = torch.randn(2, 16, 8, 8)
    residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(features)))))
    torch.testing.assert_close(block(features), torch.relu(residual + features / 2))


def test_static_gate_scales_each_channel_by_its_own_sigmoid():
    gate = StaticGate(3)
    with torch.no_grad():
        gate.logit.copy_(torch.tensor([0.0, math.log(3), -math.log(3)]))
    expected = torch.tensor([0.5, 0.75, 0.25])[:, None, None].expand(2, 3, 4, 4)
    torch.testing.assert_close(gate(torch.ones(2, 3, 4, 4)), expected)


def test_half_scale_has_nothing_to_learn():
    assert not list(HalfScale(8).parameters())
    assert torch.equal(HalfScale(8)(torch.full((1, 8, 2, 2), 3.0)), torch.full((1, 8, 2, 2), 1.5))


@pytest.mark.parametrize("architecture", SAME_WIDTHS)
def test_one_seed_gives_all_architectures_the_same_shared_weights(architecture):
    plain, other = build("resnet18", seed=3).state_dict(), build(architecture, seed=3).state_dict()
    assert set(plain) <= set(other)
    for name, value in plain.items():
        assert torch.equal(value, other[name]), name


def test_wide_network_shares_the_weights_of_the_first_three_stages():
    plain, wide = build("resnet18").state_dict(), build("wide_resnet18", width=0.25).state_dict()
    shared = [name for name in plain if not name.startswith(("blocks.6", "blocks.7", "fc"))]
    assert len(shared) > 50
    assert all(torch.equal(plain[name], wide[name]) for name in shared)


def test_both_se_placements_start_with_the_same_gates():
    residual, skip = build("se_resnet18").state_dict(), build("se_skip_resnet18").state_dict()
    assert all(torch.equal(value, skip[name]) for name, value in residual.items())


def test_another_seed_gives_other_weights_everywhere():
    one, other = (build("se_resnet18", seed=seed) for seed in (0, 1))
    drawn = [name for name, value in one.named_parameters() if value.std() > 0 and value.unique().numel() > 2]
    assert sum(".gate." in name for name in drawn) == 16
    for name in drawn:
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name)), name


def test_layers_of_one_shape_start_with_different_weights():
    weights = [value for value in build("se_resnet18").parameters() if value.dim() > 1]
    for one, other in itertools.combinations(weights, 2):
        assert one.shape != other.shape or not torch.equal(one, other)


def test_building_does_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    one = build("se_resnet18").state_dict()
    torch.manual_seed(2)
    other = build("se_resnet18").state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_convolutions_start_with_he_deviations():
    for module in build("resnet18", width=1.0).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 100_000:
            expected = math.sqrt(2 / (module.out_channels * module.kernel_size[0] ** 2))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.01)
            assert abs(module.weight.mean().item()) < 0.02 * expected


def test_linear_layers_start_uniform_within_the_root_of_the_fan_in():
    weight = build("resnet18", width=1.0).fc.weight
    bound = 512**-0.5
    assert weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize(("width", "reduction"), [(1.0, 3), (0.125, 16), (1.0, 128), (0.33, 4)])
def test_reduction_that_does_not_divide_is_refused(width, reduction):
    with pytest.raises(StudyError, match=f"reduction = {reduction} does not divide"):
        build("se_resnet18", width=width, reduction=reduction)


def test_unknown_architecture_gets_a_suggestion():
    with pytest.raises(StudyError, match="'resnet8'.*did you mean 'resnet18'"):
        build("resnet8")


def test_width_scales_the_stages():
    assert scaled((64, 128, 256, 512), 0.25) == (16, 32, 64, 128)
    assert scaled((64, 128), 1 / 128) == (1, 1)


def test_last_layer_has_one_output_a_class():
    assert build("resnet18", classes=7)(images(2)).shape == (2, 7)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_computes_in_the_precision_of_autocast(architecture):
    model, dtypes = build(architecture), []
    for block in model.blocks:
        block.register_forward_hook(lambda block, inputs, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(images(2))
    assert set(dtypes) == {torch.bfloat16}


@pytest.mark.parametrize("name", ["paper", "laptop"])
def test_the_wide_arm_of_a_study_is_wider_than_the_baseline_by_less_than_one_percent_of_its_channels(name):
    study = load_study(name)
    configs = {config.arm: config for config in (*study.runs, *study.awaiting)}
    with torch.device("meta"):
        counts = {arm: parameter_count(build_model(configs[arm], 10)) for arm in ("resnet18", "wide_resnet18")}
    assert 1.005 < counts["wide_resnet18"] / counts["resnet18"] < 1.03
