"""ImageNet weights from a local file: the right ones are used, all others refused with the cure."""

import hashlib
import io
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from dicomnode.analysis.risk.backbones import encoder, models
from dicomnode.downloads import PublishedFile
from dicomnode.errors import UsageError, WeightsError
from tests.helpers.file_server import serving
from training.cli import commands
from training.models.deep import pretrained
from training.models.deep import settings as deep_settings
from training.models.deep.pretrained import PretrainedFile, load_encoder


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
    with pytest.raises(UsageError, match=r"has sha256 .*expected 000000000000.*training pretrained resnet18"):
        load_encoder(encoder("resnet18")[0], "resnet18", other)


def test_another_network_is_refused(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.pth", models.resnet18(weights=None).state_dict())
    with pytest.raises(UsageError, match=r"is not torchvision's swin_t"):
        load_encoder(encoder("swin_t")[0], "swin_t", file)


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"no weights at all")
    file = PretrainedFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UsageError, match="is not torchvision's resnet18"):
        load_encoder(encoder("resnet18")[0], "resnet18", file)
    with pytest.raises(UsageError, match=r"No such file.*training pretrained resnet18"):
        load_encoder(encoder("resnet18")[0], "resnet18", file.model_copy(update={"path": tmp_path / "gone"}))


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "swin_t"])
def test_torchvision_says_where_the_files_are(backbone: str) -> None:
    known = pretrained.published(backbone)
    assert known.source.startswith("https://") and known.file.startswith(backbone)
    assert len(known.prefix) == 8 and int(known.prefix, 16)


def test_fetched_weights_are_what_a_network_starts_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a mirror, by the command; what it prints goes into the run's settings."""
    whole, content = models.resnet18(weights=None), io.BytesIO()
    torch.save(whole.state_dict(), content)
    name = f"resnet18-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth"
    here = PublishedFile("resnet18", name, "", "http://127.0.0.1:9/", "")
    monkeypatch.setattr(pretrained, "published", lambda _: here)
    with serving(name, content.getvalue()) as server:
        words = ["pretrained", "resnet18", "--to", str(tmp_path / "imagenet"), "--mirror", server.url]
        result = CliRunner().invoke(commands.app, words, catch_exceptions=False)
        assert result.exit_code == 0
        settings = deep_settings.read(tomllib.loads(result.stdout)["deep"])
        net, _ = encoder("resnet18")
        load_encoder(net, "resnet18", settings.pretrained["resnet18"])
        assert torch.equal(net.get_parameter("conv1.weight"), whole.conv1.weight)
        server.content = b"another file"
        words[3] = str(tmp_path / "elsewhere")
        with pytest.raises(WeightsError, match="damaged or the wrong file"):
            CliRunner().invoke(commands.app, words, catch_exceptions=False)


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(UsageError, match="resnet19: unknown backbone: use resnet18"):
        CliRunner().invoke(commands.app, ["pretrained", "resnet19", "--to", "x"], catch_exceptions=False)
