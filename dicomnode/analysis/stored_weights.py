"""Networks filled from safetensors: half precision on disk, single precision at work."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dicomnode.errors import BundleError


def fill(net: nn.Module, path: Path, what: str) -> None:
    """Put the weights of a file into a network made on torch's meta device (no random start), in evaluation mode.

    Raises:
        BundleError: the file does not hold `what`.
    """
    try:
        stored = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        net.load_state_dict(stored, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path} does not hold {what}: {error}") from None
    net.eval()
