"""A file that is no scan is refused."""

from pathlib import Path

import numpy as np
import pytest

from dicomnode.errors import UsageError
from training.data.volumes import load_scan


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
        with pytest.raises(UsageError, match="is not a registry volume"):
            load_scan(tmp_path / name)
