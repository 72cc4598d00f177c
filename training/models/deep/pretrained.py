"""ImageNet weights of an encoder from a local file, known by its digest: training needs no internet."""

import hashlib
import pickle
import re
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dicomnode.analysis.risk.backbones import BACKBONES, models
from dicomnode.downloads import PublishedFile
from dicomnode.errors import UsageError

_HOW = "Download it with `training pretrained {backbone} --to FOLDER`, which prints these settings"


class PretrainedFile(BaseModel):
    """A state dict of torchvision's network (.pth, or .safetensors) and its sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def published(backbone: str) -> PublishedFile:
    """Return the file with ImageNet weights that torchvision names for a backbone.

    Raises:
        UsageError: the backbone is unknown.
    """
    if backbone not in BACKBONES:
        raise UsageError(f"{backbone}: unknown backbone: use {', '.join(BACKBONES)}")
    source, file = models.get_model_weights(backbone).IMAGENET1K_V1.url.rsplit("/", 1)
    by_hand = f"name it as deep.pretrained.{backbone}, with its sha256 (sha256sum FILE)"
    return PublishedFile(backbone, file, "ImageNet weights", source, by_hand)


def check(backbone: str, file: PretrainedFile) -> None:
    """Compare a file with its digest.

    Raises:
        UsageError: it is missing, or another one.
    """
    how = _HOW.format(backbone=backbone)
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise UsageError(f"deep.pretrained.{backbone}: {file.path}: {error.strerror}. {how}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise UsageError(
            f"deep.pretrained.{backbone}: {file.path} has sha256 {found[:12]}…, expected {file.sha256[:12]}…. {how}"
        )


def load_encoder(encoder: nn.Module, backbone: str, file: PretrainedFile) -> None:
    """Put the file's weights into the encoder; its classifier's are left out.

    Raises:
        UsageError: the file is missing, another one, or not of this network.
    """
    check(backbone, file)
    wanted = encoder.state_dict()
    try:
        state = {_present_name(k): v for k, v in _tensors(file.path).items()}
        encoder.load_state_dict({k: v for k, v in state.items() if k in wanted})
    except (RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, AttributeError) as error:
        raise UsageError(f"deep.pretrained.{backbone}: {file.path} is not torchvision's {backbone}: {error}") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    """Tensors only: a pickle could run code."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _present_name(key: str) -> str:
    """Return the present name: DenseNet's files are older than it, "denselayer1.norm.1" is "denselayer1.norm1"."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)
