"""A file that is no scan is refused."""

from pathlib import Path

import numpy as np
import pytest

from dicomnode.errors import UsageError
from training.dataset import load_scan


def test_a_file_that_is_no_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("odd.npz", "other.npz", "missing.npz"):
        with pytest.raises(UsageError, match="is not a scan of a registry"):
            load_scan(tmp_path / name)
