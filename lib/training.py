"""Training and prediction of one network: the same loop for every architecture."""

import math
import time

import torch
from torch.nn import functional

from lib.batches import crop_and_flip, normalise, pad, plan_epoch
from lib.devices import DTYPES
from lib.errors import StudyError

PREDICTION_BATCH = 500


def learning_rate_at(step, steps, warmup_steps, peak):
    """Learning rate of update `step` (from 0) out of `steps`: linear warm-up to `peak`, then a half cosine to 0."""
    if step < warmup_steps:
        return peak * min(1, (step + 1) / warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


class Trainer:
    """One network with its optimizer on one device; `epoch` counts the finished epochs.

    images: uint8 (N, 32, 32, 3) and labels: integers (N,), moved to the device once. Raises StudyError for fewer images
    than a batch, and for a loss that is not finite.
    """

    def __init__(self, config, model, images, labels, device, precision):
        if len(labels) < config.batch_size:
            raise StudyError(f"batch_size = {config.batch_size} is larger than the {len(labels)} training images")
        self.config, self.device, self.precision = config, device, precision
        self.model = model.to(device, memory_format=torch.channels_last)
        self.images = pad(torch.from_numpy(images).to(device), config.crop_padding)
        self.labels = torch.from_numpy(labels).to(device, torch.int64)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
            # torch 2.14's fused update reads unset momentum when fp16 overflows on the very first step
            fused=precision != "fp16",
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.steps_per_epoch = len(labels) // config.batch_size
        self.epoch = 0

    def train_epoch(self):
        """One pass over the images; returns a row of metrics (loss in nats with label smoothing, times in seconds)."""
        started = time.perf_counter()
        self.model.train()
        plan = plan_epoch(self.config, self.epoch, len(self.labels)).to(self.device)
        # sums stay on the device, so that no step waits for the host
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        for step in range(self.steps_per_epoch):
            loss, hits = self._train_step(plan, step)
            loss_sum += loss
            correct += hits
        loss = loss_sum.item() / self.steps_per_epoch
        if not math.isfinite(loss):
            raise StudyError(
                f"the training loss is {loss} in epoch {self.epoch + 1}: the run has failed; try a lower learning_rate "
                "or a longer warm-up"
            )
        self.epoch += 1
        images = plan.order.numel()
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss,
            "train_accuracy": correct.item() / images,
            "train_seconds": seconds,
            "images_per_second": images / seconds,
        }

    def _train_step(self, plan, step):
        config = self.config
        done = self.epoch * self.steps_per_epoch + step
        total, warmup = (epochs * self.steps_per_epoch for epochs in (config.epochs, config.warmup_epochs))
        self.optimizer.param_groups[0]["lr"] = learning_rate_at(done, total, warmup, config.learning_rate)
        targets = self.labels[plan.order[step]]
        with self._autocast():
            logits = self.model(normalise(crop_and_flip(self.images, plan, step)))
            loss = functional.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach(), (logits.detach().argmax(1) == targets).sum()

    @torch.no_grad()
    def predict(self, images):
        """Logits float32 (N, classes), on the CPU, of uint8 images (N, 32, 32, 3), without augmentation.

        Computed in float32 whatever the training precision: bfloat16 logits tie often enough to move an accuracy.
        """
        self.model.eval()
        parts = []
        for part in torch.from_numpy(images).split(PREDICTION_BATCH):
            parts.append(self.model(normalise(part.to(self.device))))
        return torch.cat(parts).cpu().numpy()

    def _autocast(self):
        dtype = DTYPES[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def state(self):
        """All that training needs to go on, for torch.save."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state):
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch = state["epoch"]
