"""lungmask's wrapper, with lungmask's own network and weights drawn from a seed (the published ones are not here)."""

import hashlib
import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.lungs import lungmask_network
from dicomnode.analysis.lungs.lungmask import LungmaskSegmenter, WeightsFile
from dicomnode.analysis.phantom import phantom
from dicomnode.errors import ConfigurationError, RefusedError, WeightsError
from tests.unit.analysis import decided_network

with warnings.catch_warnings():
    from lungmask import LMInferer
    from lungmask.resunet import UNet


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def network(classes: int = 3, bias: tuple[float, ...] | None = None) -> bytes:
    """A state dict as lungmask makes it. A bias makes one class win everywhere; else the classes share the picture."""
    torch.manual_seed(7)
    unet = UNet(n_classes=classes, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
    unet.eval()
    with torch.inference_mode():
        if bias is not None:
            unet.last.weight.zero_()
            unet.last.bias.copy_(torch.tensor(bias))
        else:
            unet.last.bias.zero_()
            unet.last.bias.copy_(-unet(torch.rand(1, 1, 64, 64)).mean(dim=(0, 2, 3)))
    file = io.BytesIO()
    torch.save(unet.state_dict(), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "unet_r231.pth"
    path.write_bytes(network())
    return path


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def volume() -> Volume:
    """Two slices: a round body with two dark fields, and noise."""
    y, x = np.mgrid[:64, :64]
    hu = np.full((2, 64, 64), -1000, dtype=np.int16)
    hu[:, (y - 32) ** 2 + (x - 32) ** 2 < 28**2] = 40
    for centre in (20, 44):
        hu[:, ((y - 32) / 14) ** 2 + ((x - centre) / 8) ** 2 < 1] = -850
    hu += np.random.default_rng(1).integers(-30, 30, hu.shape, dtype=np.int16)
    return Volume(hu, (5.0, 5.0, 5.0), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())


@pytest.fixture(scope="module")
def decided_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return decided_network.fitted(tmp_path_factory.mktemp("weights") / "decided.pth", steps=6, pixels=128)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
@pytest.mark.slow
def test_gives_what_lungmask_gives(decided_weights: Path, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no AVX-512: oneDNN has no bf16 convolutions for it")
    monkeypatch.setattr(lungmask_network, "_computes_bf16", lambda: kind is torch.bfloat16)
    whole = phantom.chest(5, shape=(8, 128, 128), spacing_mm=(36.0, 2.8, 2.8)).volume
    chest = replace(whole, hu=whole.hu[3:6])
    direct = LMInferer(modelpath=str(decided_weights), force_cpu=True, tqdm_disable=True).apply(chest.hu)
    labels = LungmaskSegmenter(decided_weights, digest(decided_weights).upper())(chest)
    assert labels.shape == chest.hu.shape
    assert labels.dtype == np.uint8
    for label in (1, 2):
        ours, theirs = labels == label, direct == label
        assert theirs.sum() > 1000, "weights that find nothing prove nothing"
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) >= 0.999
    if kind is torch.float32:
        assert (labels != direct).mean() < 1e-4


@pytest.mark.slow
def test_lobes_are_filled_over_the_lungs_as_by_lungmask(
    tmp_path: Path, random_weights: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise of two networks exercises the filling; both ways get the same noise when computed in fp32."""
    monkeypatch.setattr(lungmask_network, "_computes_bf16", lambda: False)
    lobes = tmp_path / "unet_ltrclobes.pth"
    lobes.write_bytes(network(classes=6))
    segmenter = LungmaskSegmenter(
        random_weights, digest(random_weights), lobe_weights=WeightsFile(lobes, digest(lobes))
    )
    direct = LMInferer(
        modelpath=str(lobes), fillmodel="R231", fillmodel_path=str(random_weights), force_cpu=True, tqdm_disable=True
    ).apply(volume.hu)
    assert len(np.unique(direct)) > 2
    found = segmenter.lobes(volume, segmenter(volume))
    assert found is not None
    assert found.dtype == np.uint8
    assert (found == direct).mean() > 0.999
    assert segmenter.version.endswith(f"+{digest(lobes)[:12]}")


def test_without_lobe_weights_there_are_no_lobes(random_weights: Path, volume: Volume) -> None:
    segmenter = LungmaskSegmenter(random_weights, digest(random_weights))
    assert segmenter.lobes(volume, np.zeros(volume.hu.shape, np.uint8)) is None


def test_says_what_made_the_mask(random_weights: Path) -> None:
    segmenter = LungmaskSegmenter(random_weights, digest(random_weights))
    assert segmenter.name == "lungmask-R231"
    assert segmenter.version == f"0.2.22+{digest(random_weights)[:12]}"


@pytest.mark.slow
def test_leaves_warnings_and_stdout_alone(random_weights: Path) -> None:
    """In a process of its own: lungmask changes the filters when it is first imported."""
    script = f"""
import warnings
from pathlib import Path
import numpy as np, skimage, torch, torch.utils.data
from dicomnode.analysis.lungs import lungmask_network
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.lungs.lungmask import LungmaskSegmenter
torch.set_num_threads(1)
LungmaskSegmenter(Path({str(random_weights)!r}), {digest(random_weights)!r})(
    Volume(np.random.default_rng(1).integers(-1000, 100, (1, 32, 32), dtype=np.int16),
           (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ()))
warnings.warn("still seen", UserWarning)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "still seen" in done.stderr


def test_refuses_where_the_network_finds_nothing(tmp_path: Path, volume: Volume) -> None:
    path = tmp_path / "background.pth"
    path.write_bytes(network(bias=(5.0, 0.0, 0.0)))
    with pytest.raises(RefusedError, match="no lungs found by lungmask-R231") as refused:
        LungmaskSegmenter(path, digest(path))(volume)
    assert refused.value.code == "no-lungs"


def test_another_digest_is_refused_with_both(random_weights: Path) -> None:
    with pytest.raises(WeightsError) as refused:
        LungmaskSegmenter(random_weights, "0" * 64)
    for part in (str(random_weights), digest(random_weights), "0" * 64, "Install"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "not a state dict"),
        (lambda whole: b"", "not a state dict"),
        (lambda whole: b"no weights at all", "not a state dict"),
        (lambda whole: network(classes=6), "6 classes"),
    ],
    ids=["cut", "empty", "text", "lobes"],
)
def test_a_file_that_cannot_serve_is_refused(
    tmp_path: Path, random_weights: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(damage(random_weights.read_bytes()))
    with pytest.raises(WeightsError, match=message) as refused:
        LungmaskSegmenter(path, digest(path))
    assert str(path) in str(refused.value)


def test_code_in_the_file_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

    path = tmp_path / "weights.pth"
    torch.save({"last.bias": Harm()}, path)
    with pytest.raises(WeightsError, match="not a state dict"):
        LungmaskSegmenter(path, digest(path))
    assert not (tmp_path / "harm").exists()


def test_a_missing_file_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="classical"):
        LungmaskSegmenter(tmp_path / "none.pth", "0" * 64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_absent_device_is_refused(random_weights: Path, device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"device {device}: torch offers only cpu"):
        LungmaskSegmenter(random_weights, digest(random_weights), device=device)
