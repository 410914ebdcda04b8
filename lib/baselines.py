"""Other people's training loops, to be measured against: the everyday pipeline and the fast public recipe."""

import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lib.batches import MEAN, STD
from lib.devices import DTYPES


class ImageArray(Dataset):
    """uint8 images (N, 32, 32, 3) and labels (N,), one PIL image at a time, as torchvision's CIFAR10 does it."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform
        self.to_image = transforms.ToPILImage()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.to_image(self.images[index])), int(self.labels[index])


class EverydayLoop:
    """DataLoader workers with torchvision transforms, then an eager step: what most public CIFAR code does.

    `run(steps)` trains; nothing of it is shared with lib.training. Precision `fp32` is the everyday one.
    """

    def __init__(self, config, model, images, labels, device, workers, precision="fp32"):
        augment = [transforms.RandomCrop(32, config.crop_padding, padding_mode="reflect")]
        augment += [transforms.RandomHorizontalFlip()] * config.horizontal_flip
        transform = transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        self.prefetched = 2 * workers
        self.loader = DataLoader(
            ImageArray(images, labels, transform),
            config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=True,
            multiprocessing_context="spawn",  # workers forked from a notebook's kernel take five seconds each to end
            pin_memory=device.type == "cuda",
        )
        self.device, self.dtype, self.model = device, DTYPES[precision], model.to(device)
        self.optimizer, self.criterion = sgd(config, self.model), nn.CrossEntropyLoss()
        self.batches = forever(self.loader)

    def run(self, steps):
        """Seconds of `steps` training steps, with the workers' head start used up before."""
        self.model.train()
        for _ in range(self.prefetched):
            next(self.batches)
        with Stopwatch(self.device) as watch:
            for _ in range(steps):
                images, labels = next(self.batches)
                images = images.to(self.device, non_blocking=True)
                labels = labels.to(self.device, non_blocking=True)
                eager_step(self, images, labels)
        return watch.seconds


def forever(loader):
    """The batches of one epoch after another, each in a new order."""
    while True:
        yield from loader


class ResidentLoop:
    """All images on the device, augmented for a whole epoch at once, then eager half-precision channels-last steps."""

    def __init__(self, config, model, images, labels, device, precision):
        self.config, self.device, self.dtype = config, device, DTYPES[precision]
        self.model = model.to(device, memory_format=torch.channels_last)
        self.optimizer, self.criterion = sgd(config, self.model), nn.CrossEntropyLoss()
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        self.images = ((pixels / 255 - mean) / std).to(self.dtype).contiguous(memory_format=torch.channels_last)
        self.padded = nn.functional.pad(self.images, [config.crop_padding] * 4, mode="reflect")
        self.labels = torch.from_numpy(labels).to(device, torch.int64)

    def _augmented(self):
        images, shifts = torch.empty_like(self.images), 2 * self.config.crop_padding + 1
        offsets = torch.randint(shifts * shifts, (len(images),), device=self.device)
        for top in range(shifts):
            for left in range(shifts):
                chosen = offsets == top * shifts + left
                images[chosen] = self.padded[chosen, :, top : top + 32, left : left + 32]
        flipped = torch.rand(len(images), device=self.device) < 0.5
        return torch.where(flipped[:, None, None, None], images.flip(-1), images)

    def run(self, steps):
        """Seconds of the first `steps` training steps of an epoch, with their share of the epoch's augmentation."""
        self.model.train()
        share = steps * self.config.batch_size / len(self.labels)
        with Stopwatch(self.device) as augmentation:
            images = self._augmented()
            order = torch.randperm(len(images), device=self.device).split(self.config.batch_size)
        with Stopwatch(self.device) as training:
            for chosen in order[:steps]:
                eager_step(self, images[chosen], self.labels[chosen])
        return share * augmentation.seconds + training.seconds


def sgd(config, model):
    """The same optimizer as ours, as torch sets it up by default."""
    return torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay, nesterov=True
    )


def eager_step(loop, images, labels):
    """Forward, backward and update of a loop's model, op by op."""
    loop.optimizer.zero_grad()
    with torch.autocast(loop.device.type, loop.dtype, enabled=loop.dtype != torch.float32):
        loss = loop.criterion(loop.model(images), labels)
    loss.backward()
    loop.optimizer.step()


class Stopwatch:
    """`seconds` of the body, with all work of the device done before and after."""

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        self._wait()
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_):
        self._wait()
        self.seconds = time.perf_counter() - self.started

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
