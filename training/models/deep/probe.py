"""One step of a network on one scan, timed: what a fit will take, before it is begun."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dicomnode.analysis.risk.network import HazardNet
from dicomnode.analysis.risk.preprocess import prepare
from dicomnode.registry_format.volumes import read_volume
from training.models.deep.distributed import alone
from training.models.deep.settings import DeepSettings


@dataclass(frozen=True)
class StepTimes:
    """What one scan takes.

    Attributes:
        prepare_s: to prepare its slices from the stored volume, once.
        step_s: forward, backward and the optimiser's step.
        forward_s: forward alone.
        kept_bytes: kept from the forward pass for the backward pass.
        parameters: of the network.
        device: on which.
    """

    prepare_s: float
    step_s: float
    forward_s: float
    kept_bytes: int
    parameters: int
    device: str


def probe(backbone: str, settings: DeepSettings, volume: Path, intervals: int) -> StepTimes:
    """Prepare a scan and take one step with it, from a random start, in single precision; nothing is kept.

    Raises:
        UsageError: the volume is none, or the device is not there.
        RefusedError: it has no lungs.
    """
    start = time.monotonic()
    slices = torch.from_numpy(prepare(*read_volume(volume), settings.spec))[None]
    prepare_s = time.monotonic() - start
    device = alone(settings.device).device
    with torch.random.fork_rng(devices=()):
        net = HazardNet(backbone, intervals).train().to(device)
    optimiser = torch.optim.AdamW(net.parameters())
    pair = slices.to(device).expand(2, -1, -1, -1)  # batch norms refuse a single value
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    step_s = 0.0
    for _ in range(2):  # the first one also warms up
        optimiser.zero_grad()
        start = time.monotonic()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits, _ = net(pair)
        logits.square().mean().backward()
        optimiser.step()
        step_s = float(logits.detach().sum()) * 0.0 + time.monotonic() - start  # reading a value waits for the device
    net.eval()
    start = time.monotonic()
    with torch.inference_mode():
        float(net(pair)[0].sum())
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    return StepTimes(
        prepare_s=prepare_s,
        step_s=step_s / 2,
        forward_s=(time.monotonic() - start) / 2,
        kept_bytes=sum(size for place, size in kept.items() if place not in weights) // 4,
        parameters=sum(p.numel() for p in net.parameters()),
        device=device.type,
    )
