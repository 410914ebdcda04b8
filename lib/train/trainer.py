"""Training and prediction of one network on one device: the same loop for every architecture."""

import contextlib
import dataclasses
import math
import shutil
import sys
import time
import traceback

import numpy as np
import torch
from torch.nn import functional

from lib.data import split_indices
from lib.files import StudyError
from lib.train.augment import EpochPlan, Normalise, crop_and_flip, pad, plan_epoch
from lib.train.models import build_model, parameter_groups

PREDICTION_BATCH = 500
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
STATEFUL = ("model", "optimizer", "scaler")  # parts of a trainer that change as it trains
# settings in which runs may differ that one trainer serves in turn; all others are part of its step
OWN = {"arm", "seed", "epochs", "warmup_epochs", "learning_rate", "horizontal_flip", "lesion_images"}
FIRST_STEPS = {"learning_rate": 0.002, "epochs": 1, "warmup_epochs": 0.0}  # of Trainer.first_losses
GPU_FAULTS = {  # words of an error of torch: what to say instead
    "out of memory": "the GPU's memory is full",
    "busy or unavailable": "the GPU belongs to another process",
}


class DivergedError(StudyError):
    """A training whose loss or logits are not finite: the one reason for which a run counts as failed for good."""


class StepError(StudyError):
    """No step with the speed-ups that were tried works on this machine."""


def choose_device():
    """The first visible GPU, else the CPU; CUDA_VISIBLE_DEVICES decides what is visible."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device):
    """`bf16`, `fp16` or `fp32`, whichever the device computes fast."""
    if device.type == "cuda":
        # bf16 from Ampere on, fp16 with loss scaling from Volta on (T4, RTX 2070), fp32 before (Pascal)
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def true_float32():
    """A context in which a GPU does not compute the convolutions of float32 in TF32, which has three digits."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)


@contextlib.contextmanager
def gpu_faults_in_words():
    """Raise StudyError in one line for what other processes do to the GPU."""
    try:
        yield
    except RuntimeError as error:
        if not (known := [problem for words, problem in GPU_FAULTS.items() if words in str(error)]):
            raise
        advice = "nvidia-smi shows what runs there, CUDA_VISIBLE_DEVICES takes another GPU"
        raise StudyError(f"{known[0]}: {advice}") from None


@dataclasses.dataclass(frozen=True)
class Speedups:
    """Optimisations of a step; benchmark.ipynb takes them away one by one."""

    channels_last: bool = True  # the memory layout that convolutions are fastest in
    fused_optimizer: bool = True  # one pass over all weights, else torch's default
    compiled: bool = False  # torch.compile of augmentation, network and loss
    cuda_graph: bool = False  # the whole step as one launch


PLAIN = Speedups(channels_last=False, fused_optimizer=False)


def choose_speedups(device, precision):
    """What pays on the device: compiling on GPUs from Volta (7.0) on, but not on a CPU (benchmark.ipynb)."""
    # torch 2.14's fused update reads unset momentum when fp16 overflows on the very first step
    fused = precision != "fp16"
    if device.type != "cuda":
        return Speedups(fused_optimizer=fused)
    has_compiler = any(map(shutil.which, ("cc", "gcc", "clang")))  # Triton builds its launchers with it
    compiled = has_compiler and torch.cuda.get_device_capability(device) >= (7, 0)
    # only the fused update leaves the host out of the step, which a graph demands: the others ask for the rate's value
    return Speedups(fused_optimizer=fused, compiled=compiled, cuda_graph=fused)


def ladder(device, precision):
    """Speedups to try on the device, the fastest first: what pays there, then without graph, compilation or both."""
    best = choose_speedups(device, precision)
    without = [{"cuda_graph": False}, {"compiled": False}, {"compiled": False, "cuda_graph": False}]
    return list(dict.fromkeys([best, *(dataclasses.replace(best, **changes) for changes in without)]))


def fastest_trainer(make, rungs):
    """make(speedups) for the first of the rungs whose step works here; StepError where none does.

    What a step without any speed-up raises is raised as it is, since the code is to blame and not the machine.
    """
    for speedups in rungs:
        try:
            with gpu_faults_in_words():
                trainer = make(speedups)
                trainer.warm_up()
            return trainer
        except Exception as error:
            if isinstance(error, StudyError) or not (speedups.compiled or speedups.cuda_graph):
                raise
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            traceback.print_exc(file=sys.stdout)
            print(f"a step with {speedups} does not work here: {problem}", file=sys.stderr, flush=True)
    raise StepError("the training step does not work here: its log says why")


class Replayed:
    """A step that is called three times as it is, then captured in a CUDA graph, which each later call replays.

    The step must take its input from, and leave its output in, tensors that stay where they are. The first calls are
    real steps too: they compile kernels, let cuDNN choose its algorithms and make the optimizer allocate its state.
    """

    def __init__(self, step):
        self.step, self.calls, self.graph, self.stream = step, 0, None, torch.cuda.Stream()

    def __call__(self):
        self.calls += 1
        if self.calls <= 3:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step()
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
                self.step()
            self.graph = graph
        self.graph.replay()


def seat(config):
    """What runs must have in common to be trained one after another in one compiled, captured step."""
    return tuple((name, value) for name, value in config.model_dump().items() if name not in OWN)


def learning_rate_at(step, steps, warmup_steps, peak):
    """Learning rate of update `step` (from 0) out of `steps`: linear warm-up to `peak`, then a half cosine to 0."""
    if step < warmup_steps:
        return peak * min(1, (step + 1) / warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


class Trainer:
    """One network with its optimizer on one device; `epoch` counts the finished epochs.

    images: uint8 (N, 32, 32, 3) and labels: integers (N,), moved to the device once. speedups: by default what pays on
    the device. Raises StudyError for fewer images than a batch, DivergedError for a loss that is not finite.
    """

    def __init__(self, config, model, images, labels, device, precision, speedups=None):
        if len(labels) < config.batch_size:
            raise StudyError(f"batch_size = {config.batch_size} is larger than the {len(labels)} training images")
        self.config, self.device, self.precision = config, device, precision
        self.speedups = speedups or choose_speedups(device, precision)
        self.memory_format = torch.channels_last if self.speedups.channels_last else torch.contiguous_format
        self.model = model.to(device, memory_format=self.memory_format)
        self.images = pad(torch.from_numpy(images).to(device), config.crop_padding)
        self.labels = torch.from_numpy(labels).to(device, torch.int64)
        self.normalise = Normalise().to(device)
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.model, config.decay_gates),
            lr=torch.tensor(config.learning_rate, device=device),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
            fused=self.speedups.fused_optimizer or None,
        )
        # on a GPU, the first steps find the fastest algorithm of each convolution
        torch.backends.cudnn.benchmark = True
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.steps_per_epoch = len(labels) // config.batch_size
        self.epoch = 0
        self._forward = self._loss
        if self.speedups.compiled:
            # each architecture is compiled on its own and for fixed sizes, however many there are in one process
            torch._dynamo.config.automatic_dynamic_shapes = False
            torch._dynamo.config.recompile_limit = 64
            for store in (self.images, self.labels):
                torch._dynamo.maybe_mark_dynamic(store, 0)  # one compilation for any number of images
            self._forward = torch.compile(self._loss, fullgraph=True)
        self._advance = Replayed(self._step) if self.speedups.cuda_graph else self._step
        # what a step reads and writes, at fixed places on the device: no step waits for the host
        self.plan = EpochPlan(*(choices.to(device) for choices in plan_epoch(config, 0, len(labels))))
        self.rates = torch.zeros(self.steps_per_epoch, device=device)
        self.cursor = torch.zeros(1, device=device, dtype=torch.int64)
        self.loss_sum = torch.zeros((), device=device)
        self.correct = torch.zeros((), device=device, dtype=torch.int64)

    def warm_up(self):
        """Compile and capture the step, if it is to be, by some steps; then the trainer is at its start again."""
        compiles, steps = self.speedups.compiled or self.speedups.cuda_graph, min(6, self.steps_per_epoch)
        if compiles and not np.isfinite(self.first_losses(self.config.seed, steps)).all():
            raise RuntimeError("its losses are not finite")

    @torch.no_grad()
    def restart(self, config):
        """Become a fresh trainer of another run, in the same compiled and captured step: no tensor moves.

        Raises ValueError for a run that differs in more than OWN.
        """
        if seat(config) != seat(self.config):
            raise ValueError(f"{config.arm} needs another step than {self.config.arm}")
        self.model.load_state_dict(build_model(config, self.model.fc.out_features).state_dict())
        for state in self.optimizer.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"].zero_()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.config, self.epoch = config, 0

    def train_epoch(self):
        """One pass over the images; returns a row of metrics (loss in nats, times in seconds)."""
        started = time.perf_counter()
        self.model.train()
        rates = self._load_epoch()
        for _ in range(self.steps_per_epoch):
            self._advance()
        loss = self.loss_sum.item() / self.steps_per_epoch
        if not math.isfinite(loss):
            raise DivergedError(f"the training loss is {loss} in epoch {self.epoch + 1}: try a lower learning_rate")
        self.epoch += 1
        images, correct = self.plan.order.numel(), self.correct.item()
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch,
            "learning_rate": rates[-1],
            "train_loss": loss,
            "train_accuracy": correct / images,
            "train_seconds": seconds,
            "images_per_second": images / seconds,
        }

    def first_losses(self, seed, steps=8):
        """Losses float64 (steps,) of first steps with this seed and a low learning rate; then the trainer is as new."""
        own, sums = self.config, [0.0]
        self.restart(own.model_copy(update=FIRST_STEPS | {"seed": seed}))
        self.model.train()
        self._load_epoch()
        for _ in range(steps):
            self._advance()
            sums.append(self.loss_sum.item())
        self.restart(own)
        return np.diff(sums)

    def _load_epoch(self):
        """Bring what the steps of the epoch read to its fixed places; returns its learning rates, one a step."""
        total, warmup = (epochs * self.steps_per_epoch for epochs in (self.config.epochs, self.config.warmup_epochs))
        steps = range(self.epoch * self.steps_per_epoch, (self.epoch + 1) * self.steps_per_epoch)
        rates = [learning_rate_at(step, total, warmup, self.config.learning_rate) for step in steps]
        self.rates.copy_(torch.tensor(rates))
        for place, choices in zip(self.plan, plan_epoch(self.config, self.epoch, len(self.labels)), strict=True):
            place.copy_(choices)
        for count in (self.cursor, self.loss_sum, self.correct):
            count.zero_()
        return rates

    def _step(self):
        for group in self.optimizer.param_groups:
            group["lr"].copy_(self.rates.index_select(0, self.cursor)[0])
        loss, hits = self._forward(*self.plan.step(self.cursor))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.loss_sum += loss.detach()
        self.correct += hits
        self.cursor += 1

    def _loss(self, order, top, left, flip):
        targets = self.labels[order]
        images = self.normalise(crop_and_flip(self.images, order, top, left, flip))
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.model(images.contiguous(memory_format=self.memory_format))
            loss = functional.cross_entropy(logits, targets)
        return loss, (logits.detach().argmax(1) == targets).sum()

    @torch.no_grad()
    def predict(self, images):
        """Logits float32 (N, classes), on the CPU, of uint8 images (N, 32, 32, 3), without augmentation.

        Computed in float32 whatever the training precision: bfloat16 logits tie often enough to move an accuracy.
        """
        self.model.eval()
        parts = torch.from_numpy(images).split(PREDICTION_BATCH)
        with true_float32():
            return torch.cat([self.model(self.normalise(part.to(self.device))) for part in parts]).cpu().numpy()

    def state(self):
        """All that training needs to go on, for torch.save."""
        return {"epoch": self.epoch} | {name: getattr(self, name).state_dict() for name in STATEFUL}

    def restore(self, state):
        """Go on from what `state` returned; no tensor moves."""
        for name in STATEFUL:
            if name != "optimizer" or not self.optimizer.state:
                getattr(self, name).load_state_dict(state[name])
        for own, saved in zip(self.optimizer.state.values(), state["optimizer"]["state"].values(), strict=True):
            if own.get("momentum_buffer") is not None:
                own["momentum_buffer"].copy_(saved["momentum_buffer"])
        self.epoch = state["epoch"]


def make_trainer(config, dataset, rungs=ladder):
    """The Trainer of a run on the best device here; rungs(device, precision): Speedups to try until a step works."""
    device = choose_device()
    precision = choose_precision(device) if config.precision == "auto" else config.precision
    train, _ = split_indices(dataset.train_labels, config.validation_images)
    arrays = dataset.train_images[train], dataset.train_labels[train]

    def make(speedups):
        model = build_model(config, len(dataset.classes))
        return Trainer(config, model, *arrays, device, precision, speedups)

    return fastest_trainer(make, rungs(device, precision))
