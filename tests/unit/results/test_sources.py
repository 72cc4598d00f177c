"""Headers that are read ahead: taken once, and read where they are not there."""

from pathlib import Path

import pytest

from dicomnode.analysis.series.headers import read_source
from dicomnode.errors import RefusedError
from dicomnode.results import sources
from tests.helpers.ct_files import ct_series, write


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write(ct_series(), tmp_path)


def test_what_was_read_ahead_is_taken_once_and_in_order(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [read_source(path) for path in files]
    sources.read_ahead(files[::-1])
    with monkeypatch.context() as gone:
        gone.setattr(sources, "read_source", None)
        assert sources.headers(files) == expected
    with monkeypatch.context() as gone, pytest.raises(TypeError):
        gone.setattr(sources, "read_source", None)
        sources.headers(files)
    assert sources.headers(files) == expected


def test_another_study_replaces_the_one_before(files: list[Path], tmp_path: Path) -> None:
    other = write(ct_series(PatientID="OTHER"), tmp_path / "other")
    sources.read_ahead(files)
    sources.read_ahead(other)
    assert {one.PatientID for one in sources.headers(other)} == {"OTHER"}


def test_no_more_are_read_than_may_be_kept(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST", 2)
    read: list[Path] = []
    monkeypatch.setattr(sources, "read_source", lambda path: read.append(path) or read_source(path))
    sources.read_ahead(files)
    assert read == files[:2]
    assert len(sources.headers(files)) == len(files)


def test_what_cannot_be_read_is_told_to_who_needs_it(files: list[Path]) -> None:
    files[1].write_bytes(b"no DICOM")
    sources.read_ahead(files)
    with pytest.raises(RefusedError, match="DICOM"):
        sources.headers(files)
