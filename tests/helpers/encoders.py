"""A small 3-D encoder as a user would bring it: TorchScript, made in the test."""

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

SPEC: dict[str, object] = {"spacing_mm": [16.0, 8.0, 8.0], "size": [8, 24, 24]}


class SmallEncoder(nn.Module):
    """Two convolutions, then the mean: (1, 1, a, b, c) to (1, 6)."""

    def __init__(self, maps: bool = False) -> None:
        super().__init__()
        self.maps = maps
        self.body = nn.Sequential(nn.Conv3d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv3d(8, 6, 2), nn.ReLU())

    def forward(self, volume: Tensor) -> Tensor:
        found = self.body(volume)
        return found if self.maps else found.mean(dim=[2, 3, 4])


def save(net: nn.Module, path: Path, channels: int = 1) -> str:
    """Write a network as TorchScript; its SHA-256."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.jit.save(torch.jit.trace(net.eval(), torch.zeros(1, channels, 8, 24, 24)), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def small(path: Path, maps: bool = False) -> str:
    """Write the small encoder; its SHA-256."""
    torch.manual_seed(4)
    return save(SmallEncoder(maps), path)
