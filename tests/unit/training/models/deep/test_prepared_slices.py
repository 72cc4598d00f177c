"""Prepared slices: the node's own, made once, made again when the volume changes, whole after a kill."""

import os
from pathlib import Path

import numpy as np
import pytest

from dicomnode.analysis.risk.preprocess import Spec, prepare
from dicomnode.errors import RefusedError, UsageError
from dicomnode.registry_format.volumes import read_volume
from tests.helpers.deep_cases import write_volume
from training.models.deep import prepared_slices
from training.models.deep.prepared_slices import batches, prepare_all, spec_hash

SPEC = Spec(spacing_mm=8.0, canvas=(32, 32), slices=4)


def volumes(folder: Path, count: int = 3) -> list[Path]:
    paths = [folder / f"{i}.npz" for i in range(count)]
    for i, path in enumerate(paths):
        write_volume(path, -800 + 50 * i, i)
    return paths


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_trained_on_is_what_the_node_computes(tmp_path: Path, workers: int) -> None:
    paths = volumes(tmp_path)
    progress: list[tuple[int, int]] = []
    found = prepare_all(paths, SPEC, tmp_path / "cache", workers, lambda _, done, total: progress.append((done, total)))
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(found.read([i])[0].numpy(), prepare(*read_volume(path), SPEC))


def test_a_killed_preparation_goes_on_and_a_finished_one_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, made = volumes(tmp_path), []
    original = prepared_slices.prepare

    def dies_at_the_third(*args: object) -> np.ndarray:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(args)
        return original(*args)

    monkeypatch.setattr(prepared_slices, "prepare", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare_all(paths, SPEC, tmp_path / "cache", 1, quiet)
    made.clear()
    prepare_all(paths, SPEC, tmp_path / "cache", 1, quiet)
    assert len(made) == 1
    made.clear()
    prepare_all(paths, SPEC, tmp_path / "cache", 1, quiet)
    assert not made


def test_a_changed_volume_and_another_spec_are_prepared_anew(tmp_path: Path) -> None:
    paths = volumes(tmp_path)
    first = prepare_all(paths, SPEC, tmp_path / "cache", 1, quiet)
    write_volume(paths[1], -500, 9)
    os.utime(paths[1], ns=(1, 1))
    second = prepare_all(paths, SPEC, tmp_path / "cache", 1, quiet)
    assert [a == b for a, b in zip(first.files, second.files, strict=True)] == [True, False, True]
    assert second.read([1]).mean() > first.read([1]).mean()
    other = Spec(spacing_mm=8.0, canvas=(32, 32), slices=5)
    third = prepare_all(paths, other, tmp_path / "cache", 1, quiet)
    assert third.read([0]).shape == (1, 5, 32, 32)
    assert third.files[0].parent.name == spec_hash(other) != spec_hash(SPEC)


def test_a_scan_that_stands_twice_is_prepared_once(tmp_path: Path) -> None:
    path = volumes(tmp_path, 1)[0]
    found = prepare_all([path, path], SPEC, tmp_path / "cache", 2, quiet)
    assert found.files[0] == found.files[1]


def test_batches_come_in_order(tmp_path: Path) -> None:
    found = prepare_all(volumes(tmp_path), SPEC, tmp_path / "cache", 1, quiet)
    groups = [np.array([2]), np.array([0, 1]), np.array([1])]
    for rows, slices in zip(groups, batches(found, groups), strict=True):
        np.testing.assert_array_equal(slices, found.read(rows))
    assert list(batches(found, [])) == []


def test_a_missing_volume_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.npz cannot be read: No such file"):
        prepare_all([tmp_path / "gone.npz"], SPEC, tmp_path / "cache", 1, quiet)


def test_a_scan_without_lungs_is_refused(tmp_path: Path) -> None:
    empty = np.zeros((4, 8, 8))
    np.savez(tmp_path / "a.npz", hu=empty, labels=empty.astype(np.uint8), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0))
    with pytest.raises(RefusedError, match="no input for the model"):
        prepare_all([tmp_path / "a.npz"], SPEC, tmp_path / "cache", 1, quiet)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"is not writable .*set deep\.cache"):
        prepare_all(volumes(tmp_path), SPEC, tmp_path / "file", 1, quiet)
