"""ResNet-18 for 32×32 images with one optional gate in each block; every architecture is a line of data at the end.

Base network: He et al. 2016, arXiv 1512.03385, with the CIFAR stem (3×3 convolution, stride 1, no pooling).
"""

import copy
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
            raise StudyError(f"reduction = {reduction} does not divide {channels} channels: change it or width")
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

    def __init__(self, channels, reduction):
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

    def __init__(self, channels, reduction):
        super().__init__()

    def forward(self, x):
        return 0.5 * x


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, figure 5 left; projection shortcut, option B).

    The gate is on one path: the residual branch before the addition (Hu et al., figure 3), or the skip path (their
    SE-Identity variant, table 14).
    """

    def __init__(self, channels_in, channels, stride, gate, gate_on_skip):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))
        self.gate, self.gate_on_skip = gate, gate_on_skip

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
    """ResNet-18 from images (N, 3, 32, 32) to logits (N, classes), with `width` times the usual channels.

    `more_channels`: by how many the last stage is wider than that.
    """

    def __init__(self, width, reduction, classes, gate=None, gate_on_skip=False, more_channels=0):
        super().__init__()
        stage_channels = [max(1, round(channels * width)) for channels in STAGE_WIDTHS]
        stage_channels[-1] += more_channels
        channels_in = stage_channels[0]
        self.conv1 = nn.Conv2d(3, channels_in, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        blocks = []
        for stage, channels in enumerate(stage_channels):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                gate_module = gate(channels, reduction) if gate else nn.Identity()
                blocks.append(BasicBlock(channels_in, channels, stride, gate_module, gate_on_skip))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels_in, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(self.blocks(x).mean((2, 3)))


# Arguments of ResNet. To add an architecture, name it here; a gate is built from (channels, reduction).
ARCHITECTURES = {
    "resnet18": {},
    "se_resnet18": {"gate": SEGate},
    "se_skip_resnet18": {"gate": SEGate, "gate_on_skip": True},
    "static_gate_resnet18": {"gate": StaticGate},
    "half_scale_resnet18": {"gate": HalfScale},
    "half_scale_skip_resnet18": {"gate": HalfScale, "gate_on_skip": True},
    # adds about as many parameters as gates with 4, 8, 16 and 32 hidden units
    "wide_resnet18": {"more_channels": 3},
}


def build_model(config, classes):
    """The network of a run, initialised from its seed; raises StudyError for one that cannot be built."""
    name = config.architecture
    if name not in ARCHITECTURES:
        raise StudyError(f"unknown architecture {name!r}{suggestion(name, ARCHITECTURES)}")
    return initialise(ResNet(config.width, config.reduction, classes, **ARCHITECTURES[name]), config.seed)


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


def parameter_groups(model, decay_gates):
    """The network's parameters for an optimizer; gates that do not decay are a group without weight decay."""
    if decay_gates:
        return list(model.parameters())
    gates = [parameter for block in model.blocks for parameter in block.gate.parameters()]
    others = [parameter for parameter in model.parameters() if all(parameter is not gate for gate in gates)]
    return [{"params": others}, {"params": gates, "weight_decay": 0.0}]


def parameter_count(model):
    """Number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model):
    """Multiply-accumulate operations for one 32×32 image, in convolutions and linear layers (half of the FLOPs)."""
    from torch.utils.flop_counter import FlopCounterMode

    model = copy.deepcopy(model).to("meta")  # nothing is computed, and the network stays as it is
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32, device="meta"))
    return counter.get_total_flops() // 2
