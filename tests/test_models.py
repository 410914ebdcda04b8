import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.ops import SqueezeExcitation

from lib.study import RunConfig
from lib.train.models import ARCHITECTURES, BasicBlock, SEGate, StaticGate, build_model, multiply_adds, parameter_count

PLAIN = 11_173_962
ADDED = dict.fromkeys(ARCHITECTURES, 0) | {"se_resnet18": 87_040, "se_skip_resnet18": 87_040}
ADDED |= {"static_gate_resnet18": 1_920, "wide_resnet18": 90_927}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(architecture, seed=0, width=0.25, reduction=4):
    config = RunConfig(arm=architecture, seed=seed, architecture=architecture, width=width, reduction=reduction)
    return build_model(config, 10)


def test_parameters_at_full_width():
    with torch.device("meta"):
        counts = {name: parameter_count(build(name, 0, 1.0, 16)) for name in ARCHITECTURES}
    assert counts == {name: PLAIN + added for name, added in ADDED.items()}


@pytest.mark.parametrize(("width", "reduction", "added"), [(1.0, 16, 87_040), (0.5, 8, 43_520), (0.25, 4, 21_760)])
def test_gates_keep_their_hidden_units_and_the_wide_network_adds_about_as_much(width, reduction, added):
    plain, gated, wide = (build(name, 0, width, reduction) for name in ("resnet18", "se_resnet18", "wide_resnet18"))
    assert [block.gate.squeeze.out_features for block in gated.blocks] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert parameter_count(gated) - parameter_count(plain) == added
    assert parameter_count(wide) - parameter_count(plain) == pytest.approx(added, rel=0.06)


@pytest.mark.parametrize("architecture", ["resnet18", "se_resnet18"])
def test_multiply_adds_at_full_width_and_a_network_left_as_it_was(architecture):
    model = build(architecture, width=1.0, reduction=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stem, first_stage, other_stages, head = 1_769_472, 150_994_944, 3 * 134_217_728, 5_120
    assert multiply_adds(model) == stem + first_stage + other_stages + head + ADDED[architecture]
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_resnet18_and_its_gradients_equal_torchvision(training):
    theirs = torchvision.models.resnet18(num_classes=10)  # for 224 pixels; the stem for 32 is put in here
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = build("resnet18", width=1.0)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    logits = [model.train(training)(IMAGES) for model in (ours, theirs)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    for each in logits:
        functional.cross_entropy(each, torch.tensor([3, 8, 0])).backward()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-3, atol=1e-4)
    for mine, reference in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("gate_on_skip", [False, True])
def test_gated_block_and_its_gradients_equal_a_composition_with_torchvisions_gate(gate_on_skip, stride):
    block, gate = BasicBlock(8, 8, stride, SEGate(8, 2), gate_on_skip), SqueezeExcitation(8, 4)
    weights = [block.gate.squeeze.weight, block.gate.excite.weight]
    values = [weights[0][:, :, None, None], torch.zeros(4), weights[1][:, :, None, None], torch.zeros(8)]
    gate.load_state_dict(dict(zip(gate.state_dict(), values, strict=True)))
    x = torch.randn(4, 8, 6, 6, requires_grad=True)
    residual, skip = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))), block.shortcut(x)
    expected = torch.relu(residual + gate(skip) if gate_on_skip else gate(residual) + skip)
    torch.testing.assert_close(block(x), expected)
    mine = torch.autograd.grad(block(x).square().sum(), [x, *weights])
    theirs = torch.autograd.grad(expected.square().sum(), [x, gate.fc1.weight, gate.fc2.weight])
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other.view_as(one))


@pytest.mark.parametrize("architecture", ["se_resnet18", "se_skip_resnet18", "static_gate_resnet18"])
def test_half_scale_is_se_without_an_excitation_and_a_static_gate_before_training(architecture):
    half = "half_scale_skip_resnet18" if "skip" in architecture else "half_scale_resnet18"
    gated = build(architecture).eval()
    for block in gated.blocks if "se_" in architecture else ():
        nn.init.zeros_(block.gate.excite.weight)
    torch.testing.assert_close(gated(IMAGES), build(half).eval()(IMAGES))


def test_a_static_gate_scales_each_channel_by_its_own_sigmoid():
    gate = StaticGate(3, 1)
    gate.logit.data = torch.tensor([0.0, math.log(3), -math.log(3)])
    found = gate(torch.ones(2, 3, 4, 4))
    torch.testing.assert_close(found.mean((2, 3)), torch.tensor([0.5, 0.75, 0.25]).expand(2, 3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_seed_gives_all_architectures_the_same_shared_weights_whatever_was_drawn_before(architecture):
    plain = build("resnet18", seed=3).state_dict()
    torch.rand(1)
    other = build(architecture, seed=3).state_dict()
    assert not torch.equal(plain["conv1.weight"], build("resnet18", seed=4).conv1.weight)
    wider = ("blocks.6", "blocks.7", "fc") if architecture == "wide_resnet18" else ()
    assert all(torch.equal(plain[name], other[name]) for name in plain if not name.startswith(wider))
