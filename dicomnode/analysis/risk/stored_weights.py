"""Networks filled from safetensors: half precision on disk, single precision at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dicomnode.errors import BundleError


@contextmanager
def to_be_filled() -> Iterator[None]:
    """Where networks are made for `fill`: torch's random numbers are afterwards as they were.

    A random start costs a tenth of a second. Without one, on the meta device, its rules for shapes come in, and with
    them torch's compiler, which takes longer to import than all the rest.
    """
    with torch.random.fork_rng(devices=()):
        yield


def fill(net: nn.Module, path: Path, what: str) -> None:
    """Put the weights of a file into a network made within `to_be_filled`, in evaluation mode.

    Raises:
        BundleError: the file does not hold `what`.
    """
    try:
        stored = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        net.load_state_dict(stored, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path} does not hold {what}: {error}") from None
    net.eval()
