"""Volumes: the lungs alone are kept, networks see the same of them, and a file that is no scan is refused."""

from pathlib import Path

import numpy as np
import pytest

from dicomnode.analysis.phantom.phantom import Phantom, chest
from dicomnode.analysis.risk.preprocess import Spec, prepare
from dicomnode.errors import RefusedError, UsageError
from dicomnode.registry_format.volumes import OUTSIDE_HU, lungs_alone, read_volume, write_volume


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest(3, shape=(24, 40, 48), spacing_mm=(12.0, 7.0, 7.0))


def test_the_kept_voxels_give_the_network_the_same_input(phantom: Phantom, tmp_path: Path) -> None:
    write_volume(tmp_path / "volumes" / "scan.npz", phantom.volume, phantom.labels)
    kept, labels = read_volume(tmp_path / "volumes" / "scan.npz")
    spec = Spec(spacing_mm=6.0, canvas=(48, 48), slices=8)
    np.testing.assert_array_equal(prepare(kept, labels, spec), prepare(phantom.volume, phantom.labels, spec))
    assert kept.hu.size < phantom.volume.hu.size
    assert (kept.hu[labels == 0] == OUTSIDE_HU).all()
    np.testing.assert_array_equal(kept.hu[labels > 0], phantom.volume.hu[phantom.labels > 0])
    assert (kept.hu.dtype, labels.dtype, kept.spacing_mm) == (np.int16, np.uint8, (12.0, 7.0, 7.0))


def test_the_box_lies_where_it_was_in_the_patient(phantom: Phantom) -> None:
    labels = np.zeros_like(phantom.labels)
    labels[3:5, 10:12, 20:24] = 1
    hu, inside, origin_mm = lungs_alone(phantom.volume, labels)
    assert hu.shape == inside.shape == (2, 2, 4)
    moved = np.array(origin_mm) - phantom.volume.origin_mm
    np.testing.assert_allclose(moved, np.array([3 * 12, 10 * 7, 20 * 7]) @ np.array(phantom.volume.axes))


def test_without_lungs_nothing_is_kept(phantom: Phantom, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no voxel is labelled"):
        write_volume(tmp_path / "scan.npz", phantom.volume, np.zeros_like(phantom.labels))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "empty.npz").touch()
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    whole = {"hu": np.arange(4096), "labels": np.zeros(8), "spacing_mm": np.ones(3), "origin_mm": np.zeros(3)}
    np.savez_compressed(tmp_path / "whole.npz", **whole)
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    half = content.index(b"hu.npy") + 400  # inside the compressed numbers
    (tmp_path / "flipped.npz").write_bytes(content[:half] + b"\xff" * 64 + content[half + 64 :])
    for name in ("odd.npz", "other.npz", "missing.npz", "empty.npz", "array.npz", "cut.npz", "flipped.npz"):
        with pytest.raises(UsageError, match="is not a scan of a registry"):
            read_volume(tmp_path / name)
