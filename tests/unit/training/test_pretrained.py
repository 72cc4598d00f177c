"""ImageNet weights from a local file: the right ones are used, all others refused with the cure."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dicomnode.analysis.backbones import encoder, models
from dicomnode.errors import UsageError
from training.pretrained import PretrainedFile, load_encoder


def stored(path: Path, state: dict[str, torch.Tensor]) -> PretrainedFile:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return PretrainedFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "swin_t"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_encoder_gets_the_weights_of_the_whole_network(tmp_path: Path, backbone: str, suffix: str) -> None:
    whole = getattr(models, backbone)(weights=None)
    state = {k: v.contiguous() for k, v in whole.state_dict().items()}
    net, _ = encoder(backbone)
    load_encoder(net, backbone, stored(tmp_path / f"w{suffix}", state))
    kept = net.state_dict()
    assert kept.keys() < state.keys() and all(torch.equal(kept[k], state[k]) for k in kept)


def test_densenet_s_old_names_are_understood(tmp_path: Path) -> None:
    """torchvision's published file says `denselayer1.norm.1`, its network `denselayer1.norm1`."""
    state = models.densenet121(weights=None).state_dict()
    old = {
        k.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in k
        else k: v
        for k, v in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    net, _ = encoder("densenet121")
    load_encoder(net, "densenet121", stored(tmp_path / "w.pth", old))
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_another_file_than_expected_is_refused(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.pth", {"a": torch.zeros(1)})
    other = file.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(UsageError, match=r"has sha256 .*expected 000000000000.*IMAGENET1K_V1"):
        load_encoder(encoder("resnet18")[0], "resnet18", other)


def test_another_network_is_refused(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.pth", models.resnet18(weights=None).state_dict())
    with pytest.raises(UsageError, match=r"is no swin_t of torchvision"):
        load_encoder(encoder("swin_t")[0], "swin_t", file)


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"no weights at all")
    file = PretrainedFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UsageError, match="is no resnet18 of torchvision"):
        load_encoder(encoder("resnet18")[0], "resnet18", file)
    with pytest.raises(UsageError, match=r"No such file.*models\.get_model_weights"):
        load_encoder(encoder("resnet18")[0], "resnet18", file.model_copy(update={"path": tmp_path / "gone"}))
