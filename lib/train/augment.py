"""What a run sees in an epoch: order, crops and flips, drawn on the CPU and applied to whole batches on the device."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Of the original training images (kuangliu's 0.2023 … deviations are wrong: MadryLab/robustness issue 70).
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
SIZE = 32  # of an image, in pixels
ORDER, CROPS = 1, 2  # one random stream each


class EpochPlan(NamedTuple):
    """One epoch's random choices, int64: order (steps, batch) of images; top, left and flip for each of them."""

    order: torch.Tensor
    top: torch.Tensor
    left: torch.Tensor
    flip: torch.Tensor

    def step(self, index):
        """The choices (batch,) of one step; index: an int, or an int64 tensor (1,) that a captured step can advance."""
        index = torch.as_tensor(index, device=self.order.device).view(1)
        return EpochPlan(*(choices.index_select(0, index)[0] for choices in self))


def plan_epoch(config, epoch, images):
    """The plan of epoch `epoch` (from 0) over `images` training images: the same for all arms with the config's seed.

    The last images that do not fill a batch are left out of this epoch. Nothing depends on the architecture, the
    device or the epochs before, so that arms are paired and a resumed run sees the same batches.
    """
    steps = images // config.batch_size
    order = np.random.default_rng([config.seed, ORDER, epoch]).permutation(images)[: steps * config.batch_size]
    crops = np.random.default_rng([config.seed, CROPS, epoch])
    offsets = crops.integers(0, 2 * config.crop_padding + 1, size=(2, len(order)))
    flips = crops.integers(0, 2, size=len(order)) * config.horizontal_flip
    shaped = [torch.from_numpy(values).reshape(steps, -1) for values in (order, *offsets, flips)]
    return EpochPlan(*shaped)


def pad(images, padding):
    """Images uint8 (N, H, W, C) with `padding` pixels reflected on every side, still uint8."""
    if not padding:
        return images
    nchw = images.permute(0, 3, 1, 2)
    # torch pads floats only; a part at a time keeps the float copy small
    parts = [functional.pad(part.float(), [padding] * 4, mode="reflect").to(torch.uint8) for part in nchw.split(5000)]
    return torch.cat(parts).permute(0, 2, 3, 1).contiguous()


def crop_and_flip(padded, order, top, left, flip):
    """Images uint8 (batch, 32, 32, C), cropped and flipped in one gather; the choices: int64 (batch,)."""
    pixels = torch.arange(SIZE, device=padded.device)
    rows = top[:, None] + pixels
    columns = torch.where(flip[:, None] == 1, SIZE - 1 - pixels, pixels) + left[:, None]
    return padded[order[:, None, None], rows[:, :, None], columns[:, None, :]]


class Normalise(nn.Module):
    """uint8 (N, H, W, C) to float32 (N, C, H, W) in channels-last memory, with mean 0 and deviation 1 on CIFAR-10."""

    def __init__(self):
        super().__init__()
        # buffers, since a constant copied from the host would make every step on a GPU wait
        self.register_buffer("mean", torch.tensor(MEAN))
        self.register_buffer("std", torch.tensor(STD))

    def forward(self, images):
        return ((images / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
