"""A user's 3-D encoder: its input, its embedding, and what is refused before any of it runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.risk.encoder import Encoder, EncoderSpec, load_encoder, prepare_input
from dicomnode.errors import BundleError, RefusedError
from dicomnode.files import sha256_of
from dicomnode.registry_format.volumes import read_volume, write_volume
from tests.helpers import encoders

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def scan(seed: int = 1) -> tuple[Volume, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((14, 40, 44), np.uint8)
    labels[3:12, 8:30, 6:18], labels[2:11, 9:31, 24:37] = 1, 2
    hu = np.where(labels > 0, rng.normal(-750, 80, labels.shape), rng.normal(40, 20, labels.shape)).astype(np.int16)
    return Volume(hu, (10.0, 5.0, 5.0), (0.0, 0.0, 0.0), AXES, frames=()), labels


def loaded(path: Path, width: int | None = 6, **spec: object) -> Encoder:
    asked = EncoderSpec.from_dict({**encoders.SPEC, **spec})
    return load_encoder(path.read_bytes(), sha256_of(path), asked, width, path.name)


def test_the_input_is_the_lungs_alone_in_the_encoder_s_own_terms() -> None:
    volume, labels = scan()
    spec = EncoderSpec((10.0, 5.0, 5.0), (12, 30, 36), values=(-1.0, 1.0))
    plain = prepare_input(volume, labels, spec)
    assert plain.shape == (12, 30, 36) and plain.dtype == np.float32 and plain.min() >= -1 and plain.max() <= 1
    assert plain[0, 0, 0] == -1, "air around the lungs, whatever the body is"
    # At the scan's own spacing nothing but the window changes: the box of the lungs, 10 x 23 x 31, in the middle.
    inside = np.clip(volume.hu[2:12, 8:31, 6:37].astype(np.float32), -1024, 200)
    wanted = (np.where(labels[2:12, 8:31, 6:37] > 0, inside, -1024) + 1024) / 1224 * 2 - 1
    exact = prepare_input(volume, labels, EncoderSpec((10.0, 5.0, 5.0), (10, 23, 31), values=(-1.0, 1.0)))
    np.testing.assert_allclose(exact, wanted, atol=1e-5)
    turned = prepare_input(
        volume,
        labels,
        EncoderSpec((10.0, 5.0, 5.0), (12, 30, 36), (-1024.0, 200.0), (-1.0, 1.0), axes="xyz", flipped="xz"),
    )
    np.testing.assert_array_equal(turned, plain[::-1, :, ::-1].transpose(2, 1, 0))


@pytest.mark.parametrize("coarse", [2, 3])
def test_half_the_resolution_gives_nearly_the_same(coarse: int) -> None:
    volume, labels = scan()
    smooth = np.indices(volume.hu.shape).sum(axis=0) * 10 - 1000
    volume = Volume(smooth.astype(np.int16), volume.spacing_mm, volume.origin_mm, AXES, frames=())
    whole = np.ones_like(labels)
    fine = prepare_input(volume, whole, EncoderSpec((10.0, 5.0, 5.0), (8, 8, 8)))
    wide = prepare_input(volume, whole, EncoderSpec((10.0, 5.0 * coarse, 5.0 * coarse), (8, 8, 8)))
    middle = slice(3, 5)
    assert np.abs(fine[middle, middle, middle].mean() - wide[middle, middle, middle].mean()) < 0.01


def test_a_registry_s_volume_gives_the_embedding_of_the_whole_scan(tmp_path: Path) -> None:
    encoders.small(tmp_path / "e.pt")
    encoder = loaded(tmp_path / "e.pt")
    volume, labels = scan()
    write_volume(tmp_path / "v.npz", volume, labels)
    here, there = encoder.embed(volume, labels), encoder.embed(*read_volume(tmp_path / "v.npz"))
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert here.shape == (6,) and np.ptp(here) > 1e-3
    assert set(encoder.features(volume, labels)) == {f"encoder.{n}" for n in range(6)}
    assert np.abs(here - encoder.embed(*scan(2))).max() > 1e-5


def test_maps_are_averaged(tmp_path: Path) -> None:
    encoders.small(tmp_path / "e.pt")
    encoders.small(tmp_path / "maps.pt", maps=True)
    found = [loaded(tmp_path / name).embed(*scan()) for name in ("e.pt", "maps.pt")]
    np.testing.assert_allclose(*found, atol=1e-6)


class Odd(nn.Module):
    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, volume: Tensor) -> Tensor:
        if self.answer == "flat":
            return volume.mean(dim=[2, 3, 4])[0]
        if self.answer == "nan":
            return (volume.mean(dim=[2, 3, 4]) - 5).log().expand(1, 6)
        return volume.reshape(1, -1)[:, :3]


@pytest.mark.parametrize(
    ("answer", "message"),
    [("flat", r"gives \(1,\), not a tensor"), ("nan", "not 6 finite ones"), ("few", "gives 3 numbers, not 6")],
)
def test_an_encoder_that_gives_something_else_is_refused(tmp_path: Path, answer: str, message: str) -> None:
    encoders.save(Odd(answer), tmp_path / "odd.pt")
    with pytest.raises(BundleError, match=message):
        loaded(tmp_path / "odd.pt").embed(*scan())


def test_what_is_no_torchscript_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(BundleError, match=r"e\.pt is not TorchScript"):
        loaded(tmp_path / "e.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "state.pt")  # a state dict, as it is often handed on
    with pytest.raises(BundleError, match=r"state\.pt is not TorchScript"):
        loaded(tmp_path / "state.pt")
    encoders.small(tmp_path / "e.pt")
    encoders.save(nn.Conv3d(2, 6, 3), tmp_path / "two.pt", channels=2)
    with pytest.raises(BundleError, match=r"two\.pt fails on \(1, 1, 8, 24, 24\): .*2 channels"):
        loaded(tmp_path / "two.pt").embed(*scan())
    volume, labels = scan()
    with pytest.raises(RefusedError, match="no voxel"):
        loaded(tmp_path / "e.pt").embed(volume, np.zeros_like(labels))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [4, 24, 24]}, "size is"),
        ({"size": [600, 600, 600]}, "voxels in all"),
        ({"spacing_mm": [0.0, 1.0, 1.0]}, "spacing_mm is"),
        ({"axes": "zzx"}, "axes is zzx"),
        ({"flipped": "q"}, "flipped is q"),
        ({"window_hu": [200, -1024]}, "window_hu is"),
        ({"outside_hu": 900.0}, "outside_hu is"),
        ({"version": 2}, "version is 2"),
        ({"sise": [1]}, "unknown key: sise"),
        ({"size": 3}, "wrong type"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderSpec.from_dict({**encoders.SPEC, **changes})
    assert EncoderSpec.from_dict(EncoderSpec.from_dict(encoders.SPEC).to_dict()) == EncoderSpec.from_dict(encoders.SPEC)
