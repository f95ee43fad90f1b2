"""Several processes, one run: ranks, sums over ranks, and who may write.

Gradients are summed once per step over one flat buffer. The loss is already divided by the target
tokens of the whole step, so that the sum is exact whatever the ranks' shares are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dragoman.errors import DragomanError

# What rank 0 does alone while the others wait: read a corpus of any size, or validate with a beam.
# A rank that ends makes torchrun end all, so that nothing waits for the dead.
PATIENCE = timedelta(days=1)


def _together(call: Callable[..., Any], *values: Any) -> None:
    """Make a call that all ranks make.

    Raises:
        DragomanError: if one of them is gone; PyTorch says so at length, and each rank again.
    """
    try:
        call(*values)
    except RuntimeError:
        raise DragomanError(
            "another rank has ended or cannot be reached, so this one ends too; what it said is "
            "the reason. The same command goes on from the last checkpoint"
        ) from None


@dataclass(frozen=True)
class Ranks:
    """This process among those that ``torchrun`` started."""

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes; the others only compute."""
        return self.rank == 0

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sum over ranks."""
        if self.world == 1:
            return
        parts = list(tensors)
        flat = torch.cat([part.flatten() for part in parts])
        _together(dist.all_reduce, flat)
        for part, summed in zip(parts, flat.split([p.numel() for p in parts]), strict=True):
            part.copy_(summed.view_as(part))

    def from_main(self, values: list[float], device: torch.device) -> list[float]:
        """Return rank 0's numbers on every rank."""
        if self.world == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=device)
        _together(dist.broadcast, shared, 0)
        return [float(value) for value in shared.tolist()]

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is up on any rank."""
        if self.world == 1:
            return flag
        raised = torch.tensor([float(flag)], device=device)
        _together(dist.all_reduce, raised, dist.ReduceOp.MAX)
        return bool(raised.item())

    def wait(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            _together(dist.barrier)


def launch(device: str) -> Ranks:
    """Join the other processes, if ``torchrun`` started this one (gloo on CPU, nccl on GPUs).

    ``device`` is the config key: a run on the CPU of a machine with GPUs needs gloo too.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    if not dist.is_initialized():
        on_gpus = torch.cuda.is_available() and device != "cpu"
        dist.init_process_group("nccl" if on_gpus else "gloo", timeout=PATIENCE)
    return Ranks(dist.get_rank(), world)


def local_device(device: torch.device) -> torch.device:
    """Return this rank's own GPU, or the first one, where the config says just ``cuda``."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def leave() -> None:
    """Say goodbye to the other ranks."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
