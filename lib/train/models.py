"""ResNet-18 for 32×32 images with one optional gate in each block; every architecture is a line of data at the end.

Base network: He et al. 2016, arXiv 1512.03385, with the CIFAR stem (3×3 convolution, stride 1, no pooling).
"""

import functools
import hashlib

import torch
from torch import nn
from torch.nn import functional

from lib.files import StudyError, suggestion

STAGE_WIDTHS = (64, 128, 256, 512)  # channels of ResNet-18's four stages
BLOCKS_PER_STAGE = 2


class SEGate(nn.Module):
    """Squeeze and excitation: x (N, C, H, W) times a gate in (0, 1) for each image and channel.

    Hu et al. 2018, arXiv 1709.01507, equations 2 to 4: average pool, FC C → C/r, ReLU, FC C/r → C, sigmoid; no biases.
    """

    def __init__(self, channels, reduction):
        super().__init__()
        if channels % reduction:
            raise StudyError(
                f"reduction = {reduction} does not divide a stage of {channels} channels: change r or width"
            )
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def gate(self, x):
        """Gates (N, C) of the feature maps x (N, C, H, W)."""
        return torch.sigmoid(self.excite(functional.relu(self.squeeze(self.averages(x)))))

    def averages(self, x):
        """Averages (N, C) of x over its pixels."""
        # x.mean((2, 3)) has a gradient in another memory layout, which doubles what a gate costs on a CPU (benchmark)
        return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)

    def forward(self, x):
        return x * self.gate(x)[:, :, None, None]


class StaticGate(nn.Module):
    """One learned scalar a channel through the SE gate's sigmoid, without looking at the input; starts at 0.5."""

    def __init__(self, channels):
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(channels))

    def gate(self, x):
        """Gates (N, C) of the feature maps x (N, C, H, W): the same for every image."""
        return self.factors(x).expand(len(x), -1)

    def factors(self, x):
        """Gates (C,) in the precision of x."""
        return torch.sigmoid(self.logit).to(x.dtype)  # or float32 would spread through the network under autocast

    def forward(self, x):
        return x * self.factors(x)[:, None, None]


class HalfScale(nn.Module):
    """The fixed factor 0.5: about what an SE gate is at initialisation, and nothing else."""

    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return 0.5 * x


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, figure 5 left; projection shortcut, option B).

    `make_gate(channels)` builds the gate of one path: the residual branch before the addition (Hu et al., figure 3),
    or the skip path (their SE-Identity variant, table 14).
    """

    def __init__(self, channels_in, channels, stride, make_gate, gate_on_skip):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))
        self.gate = make_gate(channels) if make_gate else nn.Identity()
        self.gate_on_skip = gate_on_skip

    def extra_repr(self):
        return f"gate_on_skip={self.gate_on_skip}"

    def forward(self, x):
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)), inplace=True)))
        skip = self.shortcut(x)
        if self.gate_on_skip:
            skip = self.gate(skip)
        else:
            residual = self.gate(residual)
        # in place: 5 % faster on a CPU, same values
        return functional.relu(residual.add_(skip), inplace=True)


class ResNet(nn.Module):
    """ResNet-18 from images (N, 3, 32, 32) to logits (N, classes); `stage_widths`: channels of the four stages."""

    def __init__(self, stage_widths, classes, make_gate=None, gate_on_skip=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stage_widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stage_widths[0])
        blocks, channels = [], stage_widths[0]
        for stage, width in enumerate(stage_widths):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width, stride, make_gate, gate_on_skip))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(self.blocks(x).mean((2, 3)))


def scaled(widths, width):
    """Stage widths times the width multiplier, rounded, at least 1."""
    return tuple(max(1, round(channels * width)) for channels in widths)


def resnet18(width, reduction, classes):
    return ResNet(scaled(STAGE_WIDTHS, width), classes)


def se_resnet18(width, reduction, classes, gate_on_skip=False):
    make_gate = functools.partial(SEGate, reduction=reduction)
    return ResNet(scaled(STAGE_WIDTHS, width), classes, make_gate, gate_on_skip)


def static_gate_resnet18(width, reduction, classes):
    return ResNet(scaled(STAGE_WIDTHS, width), classes, StaticGate)


def half_scale_resnet18(width, reduction, classes, gate_on_skip=False):
    return ResNet(scaled(STAGE_WIDTHS, width), classes, HalfScale, gate_on_skip)


def wide_resnet18(width, reduction, classes):
    """The last stage wider by 3 channels: about the parameters that gates with 4, 8, 16 and 32 hidden units add."""
    widths = scaled(STAGE_WIDTHS, width)
    return ResNet((*widths[:3], widths[3] + 3), classes)


# To add an architecture, write a function of (width, reduction, classes) and name it here.
ARCHITECTURES = {
    "resnet18": resnet18,
    "se_resnet18": se_resnet18,
    "se_skip_resnet18": functools.partial(se_resnet18, gate_on_skip=True),
    "static_gate_resnet18": static_gate_resnet18,
    "half_scale_resnet18": half_scale_resnet18,
    "half_scale_skip_resnet18": functools.partial(half_scale_resnet18, gate_on_skip=True),
    "wide_resnet18": wide_resnet18,
}


def build_model(config, classes):
    """The network of a run, initialised from its seed; raises StudyError for one that cannot be built."""
    if config.architecture not in ARCHITECTURES:
        raise StudyError(
            f"unknown architecture {config.architecture!r}{suggestion(config.architecture, ARCHITECTURES)}"
        )
    model = ARCHITECTURES[config.architecture](config.width, config.reduction, classes)
    return initialise(model, config.seed)


@torch.no_grad()
def initialise(model, seed):
    """Draw every convolution and linear weight from a generator of its own, seeded by `seed` and the weight's name.

    Layers that two architectures share start equal whatever other layers stand between them. Convolutions: normal with
    fan-out (He et al. 2015, arXiv 1502.01852, section 2.2); linear layers: torch's default, uniform within ±1/√fan-in.
    """
    for name, module in model.named_modules():
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
    return model


def parameter_count(model):
    """Number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model):
    """Multiply-accumulate operations for one 32×32 image, in convolutions and linear layers (half of the FLOPs)."""
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()  # so that counting leaves the running statistics alone
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32, device=next(model.parameters()).device))
    model.train(training)
    return counter.get_total_flops() // 2
