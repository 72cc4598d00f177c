"""What tests, campaigns and benchmarks need besides this repository: looked for first, and named with the cure."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Where programs lie that no user has in his path.
_SYSTEM = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/15/bin")


class MissingError(Exception):
    """A peer or data that is not there; the message names the cure."""


def data_folder() -> Path:
    """The folder of public test data: `DICOMNODE_TEST_DATA`, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("DICOMNODE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise MissingError(f"no test data at {folder}: set DICOMNODE_TEST_DATA to its folder")
    return folder


def dicom_files(name: str) -> list[Path]:
    """The DICOM files of one folder of the test data."""
    folder = data_folder() / name
    found = sorted(folder.glob("*.dcm"))
    if not found:
        raise MissingError(f"no DICOM files in {folder}: set DICOMNODE_TEST_DATA to the folder that holds {name}")
    return found


def program(name: str, package: str) -> str:
    """The path of a real peer's program, from the named Debian package."""
    # The virtual environment has a storescu and a storescp of its own (pynetdicom's): they are no other people's.
    # dcmqi is the one peer that comes from a Python package.
    own = Path(sys.executable).parent
    system = [f for f in os.environ.get("PATH", "").split(":") if Path(f) != own] + list(_SYSTEM)
    path = shutil.which(name, path=str(own) if package == "dcmqi" else ":".join(system))
    if path is None:
        raise MissingError(f"{name} is not installed: {'pip' if package == 'dcmqi' else 'apt-get'} install {package}")
    return path


def viewer_folder() -> Path:
    """OHIF's built files with our configuration, as `make viewer` leaves them."""
    folder = ROOT / "build" / "viewer" / "ohif"
    if not (folder / "index.html").is_file():
        raise MissingError(f"no OHIF in {folder}: make viewer")
    return folder


def check_or_exit(data: Sequence[str] = (), programs: Sequence[tuple[str, str]] = ()) -> None:
    """For a command line: exit status 2 with everything that is missing, before any work is begun.

    Args:
        data: folders of DICOM files below the test data.
        programs: pairs of a program and its Debian package.
    """
    missing = []
    for look, what in [*((dicom_files, (name,)) for name in data), *((program, pair) for pair in programs)]:
        try:
            look(*what)  # type: ignore[operator]
        except MissingError as error:
            missing.append(str(error))
    if missing:
        print(*dict.fromkeys(missing), sep="\n", file=sys.stderr)
        raise SystemExit(2)
