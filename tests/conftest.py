"""Fixtures that every part of the suite shares: the public test data and the real peers."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def absent(what: str) -> None:
    """A missing peer or missing data: a skip that names the cure, a failure where CI promised to have it."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public test data (`DICOMNODE_TEST_DATA`, else ../shared/data beside the repository)."""
    folder = Path(os.environ.get("DICOMNODE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        absent(f"no test data at {folder}: set DICOMNODE_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def peer() -> Callable[[str, str], str]:
    """`peer("storescu", "dcmtk")`: the path of a real peer's program, from the named Debian package."""

    def find(program: str, package: str) -> str:
        folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/local/sbin"]
        # pynetdicom installs scripts with the names of DCMTK's programs: the virtual environment is asked last.
        own = str(Path(sys.executable).parent)
        folders = [folder for folder in folders if folder != own] + [own]
        path = shutil.which(program, path=":".join(folders))
        if path is None:
            absent(f"{program} is not installed: apt-get install {package}")
        assert path is not None
        return path

    return find
