"""The processes that fit one network together: torch's DistributedDataParallel, started by torchrun or not at all."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dicomnode.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that share the work."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and tells progress."""
        return self.rank == 0

    def wrapped(self, net: nn.Module) -> nn.Module:
        """Return the network on the device; of several, its gradients become the mean over the processes."""
        net = net.to(self.device)
        if self.world == 1:
            return net
        if self.device.type == "cuda":  # on a CPU torch has none: there each process's batch norms see its own scans
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return DistributedDataParallel(net, device_ids=None if self.device.type == "cpu" else [self.device])

    def quiet(self, net: nn.Module, last: bool) -> AbstractContextManager[None]:
        """While gradients accumulate, only the last part's backward pass exchanges them."""
        return net.no_sync() if isinstance(net, DistributedDataParallel) and not last else nullcontext()

    def agreed(self, value: float) -> float:
        """Return the first process's value, in all of them."""
        if self.world == 1:
            return value
        shared: Tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return float(shared)

    def summed(self, value: float) -> float:
        """Return the sum over the processes, in all of them."""
        if self.world == 1:
            return value
        shared: Tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared)
        return float(shared)


def alone(device: str) -> Ranks:
    """One process on "cpu", "cuda", or on whichever is there ("auto").

    Raises:
        UsageError: there is no such device.
    """
    return Ranks(0, 1, _device(device, 0))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Yield the processes that torchrun started (it sets RANK, LOCAL_RANK, WORLD_SIZE): gloo on CPUs, NCCL on GPUs.

    Raises:
        UsageError: there is no such device.
    """
    place = _device(device, int(os.environ["LOCAL_RANK"]))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), place)
    finally:
        distributed.destroy_process_group()


def _device(device: str, index: int) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise UsageError(f"deep.device is cuda, but process {index} finds {torch.cuda.device_count()} GPUs: use fewer")
    return torch.device("cuda", index)
