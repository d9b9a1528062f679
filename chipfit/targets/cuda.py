# SPDX-License-Identifier: Apache-2.0
"""``cuda``: networks timed on an NVIDIA GPU by the GPU's own clock, through PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from chipfit.errors import BadInput, MissingBackend
from chipfit.targets.base import TARGETS
from chipfit.targets.timing import Protocol, Run, Sampler
from chipfit.targets.torch_device import TorchTarget

_SWITCH = {"yes": True, "true": True, "no": False, "false": False}


class Cuda(TorchTarget):
    """The current CUDA device, batch 1; see :class:`~chipfit.targets.torch_device.TorchTarget`.

    A sample lies between two CUDA events, so it is what the GPU's clock says from the first kernel
    to the last. Small networks in eager mode leave the GPU waiting for the next launch: those gaps
    are part of the time, as they are in the user's hands. A replayed CUDA graph has none.

    In float32, TF32 is off: float32 is float32.

    Args:
        mode: ``"eager"``, ``"channels_last"`` or ``"compiled"``.
        precision: ``"float32"`` or ``"float16"``.
        threads: Of the host; kernels do not depend on it.
        protocol: Effort of a measurement.
        replay: Record the kernels of one run in a CUDA graph, and time its replay.

    Raises:
        MissingBackend: PyTorch sees no GPU.
    """

    name = "cuda"
    precisions = ("float32", "float16")
    device = "cuda"
    runs_on = "gpu"
    #: Tensor cores work on 8 half-precision channels at a time.
    alignment = 8
    memory = "GPU memory"
    roofline_side = 1024

    def __init__(
        self, mode: str = "eager", precision: str = "float32", threads: int | str = 1,
        protocol: Protocol | None = None, replay: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(mode, precision, threads, protocol)
        if not torch.cuda.is_available():
            raise MissingBackend(
                "the cuda target needs a GPU that PyTorch sees, and there is none",
                "install PyTorch for CUDA on a machine with an NVIDIA GPU, or use torch-cpu",
            )
        self.replay = replay
        if replay:
            self.options = {**self.options, "replay": "yes"}

    @property
    def sampler(self) -> Sampler:
        """CUDA events around the runs."""
        return between_events

    def in_precision(self, precision: str) -> Cuda:
        """Return the same in another precision."""
        return Cuda(self.mode, precision, self.threads, self.protocol, self.replay)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Turn TF32 off, and hold PyTorch's number of threads."""
        switches: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
        before = [switch.allow_tf32 for switch in switches]
        try:
            for switch in switches:
                switch.allow_tf32 = False
            with super().settings():
                yield
        finally:
            for switch, value in zip(switches, before, strict=True):
                switch.allow_tf32 = value

    def _device_facts(self) -> str:
        gpu = torch.cuda.get_device_name().replace(" ", "_")
        return f"cuda={torch.version.cuda} gpu={gpu} replay={'yes' if self.replay else 'no'}"

    def _runner(self, function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> Run:
        run = super()._runner(function, inputs)
        return recorded(run) if self.replay else run


def between_events(run: Run, repeats: int) -> float:
    """Return the mean time of one run in seconds, between two events on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / repeats


def recorded(run: Run) -> Run:
    """Return the replay of a CUDA graph of ``run``.

    As PyTorch asks for, it runs a few times on a side stream first, so that libraries have chosen
    their kernels and set aside their memory.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        graph.replay()

    replay.__dict__["kept"] = run  # the graph holds addresses only
    return replay


@TARGETS.register(
    "cuda", summary="an NVIDIA GPU through PyTorch (float32 or float16, CUDA graphs), measured"
)
def cuda(
    mode: str = "eager", precision: str = "float32", threads: int | str = 1,
    replay: str | bool = False,
) -> Cuda:  # fmt: skip
    """Return the target; options are text where they stand in a name."""
    text = str(replay).lower()
    if text not in _SWITCH:
        raise BadInput(f"replay={replay} is neither yes nor no")
    return Cuda(mode, precision, threads, None, _SWITCH[text])
