"""The volumes of a run are known by their content; another one is not taken for it."""

import os
from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from training.run import volume_digests
from training.run.record import Record


def test_a_volume_that_was_changed_is_refused_and_a_touched_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"volumes/{name}.npz").write_bytes(name.encode())
    names = ["volumes/a.npz", "", "volumes/b.npz"]
    first = volume_digests.record(tmp_path, tmp_path, names, lambda *_: None)
    assert (first["count"], first["bytes"]) == (2, 2) and len(str(first["sha256"])) == 64
    os.utime(tmp_path / "volumes/a.npz", (1, 1))
    assert volume_digests.record(tmp_path, tmp_path, names, lambda *_: None) == first
    (tmp_path / "volumes/b.npz").write_bytes(b"c")
    os.utime(tmp_path / "volumes/b.npz", (2, 2))
    with pytest.raises(UsageError, match=r"b\.npz is another volume than when the run began: restore it"):
        volume_digests.record(tmp_path, tmp_path, names, lambda *_: None)
    (tmp_path / "volumes/b.npz").unlink()
    with pytest.raises(UsageError, match="restore the volume, or begin a new run"):
        volume_digests.record(tmp_path, tmp_path, names, lambda *_: None)


def test_a_run_of_before_goes_on_where_a_new_setting_has_its_default(tmp_path: Path) -> None:
    old = {"settings": {"seed": 1, "features": {"workers": 0}}, "sha256": {}}
    Record(tmp_path, {}, old)
    defaults = {"settings": {"horizons": [1, 3, 5], "features": {"preparation": "p"}}}
    now = {"settings": {"seed": 1, "horizons": [1, 3, 5], "features": {"workers": 0, "preparation": "p"}}, "sha256": {}}
    Record(tmp_path, {}, now, (), defaults)
    changed = {**now, "settings": {**now["settings"], "horizons": [2]}}
    with pytest.raises(UsageError, match=r"different settings\.horizons"):
        Record(tmp_path, {}, changed, (), defaults)
