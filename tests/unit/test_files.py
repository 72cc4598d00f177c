"""What comes with the program is found in a checkout and in an installed wheel."""

from pathlib import Path

import pytest

from dicomnode import files
from tests.conftest import ROOT


def test_in_a_checkout_it_lies_beside_the_packages() -> None:
    assert files.shipped("weights") == ROOT / "weights"


def test_in_a_wheel_it_lies_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "dicomnode"
    inside, stranger = package / "shipped" / "weights", package.parent / "weights"
    inside.mkdir(parents=True)
    stranger.mkdir()  # what another distribution has put there
    monkeypatch.setattr(files, "_PACKAGE", package)
    assert files.shipped("weights") == inside


def test_in_neither_it_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "dicomnode")
    with pytest.raises(FileNotFoundError, match="make install") as caught:
        files.shipped("weights")
    assert caught.value.filename == str(tmp_path / "dicomnode" / "shipped" / "weights")
