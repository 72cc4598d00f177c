"""What comes with the program is found in a checkout and in an installed wheel; TOML of other people is bounded."""

import tomllib
from pathlib import Path

import pytest

from dicomnode import files
from dicomnode.files import parse_toml
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


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 31 + "]" * 31,
        "a = " + "[" * 5000 + "]" * 5000,
        "a" + ".a" * 30 + " = {}",
        "a" + ".a" * 5000 + " = {}",
    ],
)
def test_toml_nested_without_end_is_no_toml(text: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError, match="more than 30 levels deep"):
        parse_toml(text)


def test_toml_is_read_as_it_stands() -> None:
    assert parse_toml("[[a]]\nb = {c = [[1, 2], []]}\n") == {"a": [{"b": {"c": [[1, 2], []]}}]}
    assert parse_toml("a" + ".a" * 28 + " = 1")
