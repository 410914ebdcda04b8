"""What makes a training step fast without changing what it computes, and which of it pays on a device."""

import dataclasses
import shutil

import torch


@dataclasses.dataclass(frozen=True)
class Speedups:
    """Optimisations of a step; benchmark.ipynb takes them away one by one."""

    channels_last: bool = True  # the memory layout that convolutions are fastest in
    fused_optimizer: bool = True  # one pass over all weights
    compiled: bool = False  # torch.compile of augmentation, network and loss
    cuda_graph: bool = False  # the whole step as one launch


def choose_speedups(device, precision):
    """What pays on the device: compiling on GPUs from Volta (7.0) on, but not on a CPU (benchmark.ipynb)."""
    # torch 2.14's fused update reads unset momentum when fp16 overflows on the very first step
    fused = precision != "fp16"
    if device.type != "cuda":
        return Speedups(fused_optimizer=fused)
    has_compiler = any(map(shutil.which, ("cc", "gcc", "clang")))  # Triton builds its launchers with it
    compiled = has_compiler and torch.cuda.get_device_capability(device) >= (7, 0)
    # only the fused update leaves the host out of the step, which a graph demands
    return Speedups(fused_optimizer=fused, compiled=compiled, cuda_graph=fused)


class Replayed:
    """A step that is called a few times as it is, then captured once in a CUDA graph, which each later call replays.

    The step must take its input from, and leave its output in, tensors that stay where they are. The first calls are
    real steps too: they compile kernels, let cuDNN choose its algorithms and make the optimizer allocate its state.
    """

    CALLS_BEFORE_CAPTURE = 3

    def __init__(self, step):
        self.step, self.calls, self.graph, self.stream = step, 0, None, torch.cuda.Stream()

    def __call__(self):
        self.calls += 1
        if self.calls <= self.CALLS_BEFORE_CAPTURE:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step()
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step()
        self.graph.replay()
