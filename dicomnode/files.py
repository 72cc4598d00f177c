"""Files that a reader sees whole or not at all, folders that outlive a power cut, digests, and what is shipped."""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: The content of a file, text as UTF-8, or what writes it into the open file.
Content = bytes | str | Callable[[BinaryIO], object]

_PACKAGE = Path(__file__).resolve().parent


def write_whole(path: Path, content: Content, *, durable: bool = True) -> None:
    """Write a file so that a reader sees all of it or, under this name, what was there before; also after a crash.

    It is written beside its place, under a name that nobody else uses, and renamed. Folders are made where they are
    missing. If anything fails, nothing is left behind.

    Args:
        path: of the file.
        content: bytes, text (as UTF-8), or what writes into the open file.
        durable: return only when file and name are on the disk. Without it, a power cut may lose the file or leave it
            empty: for what is made again with no loss.

    Raises:
        OSError: no space, no permission.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; each new name is on the disk (fsync of its parent) when this returns."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: a file's own fsync does not promise that its name is there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some network file systems know no fsync of a folder
            raise
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped(name: str) -> Path:
    """Find what comes with the program: `name` is its path in the repository, as "weights" or "ae_config.toml".

    It lies beside the packages in a checkout, and in dicomnode/shipped/ where a wheel was installed (setup.py).

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for folder in (_PACKAGE / "shipped", _PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(
        errno.ENOENT,
        f"it came with neither a checkout nor a wheel of dicomnode (looked in {_PACKAGE.parent} too): install again, "
        "with `make install` or from a wheel made by `pip wheel .`",
        str(_PACKAGE / "shipped" / name),
    )
