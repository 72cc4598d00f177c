"""Files that a reader sees whole or not at all, folders that outlive a power cut, names on disk, digests.

**Names.** What came from the network or out of a database becomes a path only through `name_of` (one component) and
`inside` (below a root). Both the spool and the results are named so, whatever a peer calls a UID.

**Rights.** Every folder made here is its owner's alone (0700) and every file too (0600), whatever the umask: they hold
patients' data. `private_umask` says the same to libraries that make files themselves.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

from dicomnode.logs import is_uid

#: The content of a file, text as UTF-8, or what writes it into the open file.
Content = bytes | str | Callable[[BinaryIO], object]

#: Rights of what we make: the owner's alone.
FOLDER_MODE, FILE_MODE = 0o700, 0o600

#: Levels of tables and arrays in a TOML file; ours need three.
_DEEPEST = 30
_TOO_DEEP = f"tables or arrays more than {_DEEPEST} levels deep"

_PACKAGE = Path(__file__).resolve().parent


class OutsideRootError(PermissionError):
    """A path leads out of the folder that it must stay in: nothing is written or deleted there."""

    def __init__(self, path: Path, root: Path) -> None:
        super().__init__(
            errno.EACCES, f"it leads out of {root}: a link there, or a name that is none; remove it", str(path)
        )


def name_of(text: str) -> str:
    """Return what the network or a database calls something as the name of one file or folder.

    A true UID stays as it is; anything else (a path, "..", a line, 70 kB) becomes "x" and 40 digits of its SHA-256.
    """
    if is_uid(text):
        return text
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        content = text.encode("utf-8", "surrogatepass")
    return "x" + hashlib.sha256(content).hexdigest()[:40]


def inside(root: Path, *names: str) -> Path:
    """Return the path of `names` below `root`, once it is certain that it lies there; links are followed.

    Raises:
        OutsideRootError: a name is no single component, or a link leads out of `root` (or back to it).
    """
    path = root.joinpath(*names)
    if any(n in ("", ".", "..") or "/" in n or "\0" in n for n in names):
        raise OutsideRootError(path, root)
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath((real, real_root)) != real_root or real == real_root:
        raise OutsideRootError(path, root)
    return path


def within(root: Path, path: Path) -> Path:
    """Return `path`, as `inside` does, where it stands whole in a database. Raises OutsideRootError."""
    try:
        return inside(root, *path.relative_to(root).parts)
    except ValueError:
        raise OutsideRootError(path, root) from None


def remove_tree(root: Path, *names: str) -> None:
    """Delete a folder below `root` with all that is in it; links in it are removed, never followed. None there: fine.

    Raises:
        OutsideRootError: as `inside`, or the folder is a link itself.
        OSError: it cannot be deleted.
    """
    path = inside(root, *names)
    if path.is_symlink():
        raise OutsideRootError(path, root)
    if path.is_dir():
        shutil.rmtree(path)


def private_umask() -> None:
    """Let everything that this process makes, libraries too, be its user's alone. Every command begins with it."""
    os.umask(0o077)


def tighten(path: Path) -> None:
    """Take the rights of all others from a folder or file of ours that was made with them. None there: fine.

    Raises:
        OSError: it belongs to another user.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return
    if mode & 0o077:
        path.chmod(mode & ~0o077)


def private_opener(path: str, flags: int) -> int:
    """For `open(..., opener=private_opener)`: a file that is made is its owner's alone, whatever the umask."""
    return os.open(path, flags, FILE_MODE)


def lock(file: IO[bytes]) -> bool:
    """Hold a file's lock until it is closed, or its process ends. False: somebody else holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_whole(path: Path, content: Content, *, durable: bool = True) -> None:
    """Write a file so that a reader sees all of it or, under this name, what was there before; also after a crash.

    It is written beside its place, under a name that nobody else uses, and renamed: a link under this name is replaced,
    not followed. Folders are made where they are missing. If anything fails, nothing is left behind.

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
        with open(temporary, "xb", opener=private_opener) as file:
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
    """Make a folder and its parents, for their owner alone; each new name is on the disk when this returns."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(FOLDER_MODE, exist_ok=True)
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


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML file that a person, or another machine, has written.

    Raises:
        tomllib.TOMLDecodeError: not TOML, or nested so deeply that nothing of ours could walk through it.
    """
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError(_TOO_DEEP) from None
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return table
    raise tomllib.TOMLDecodeError(_TOO_DEEP)


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
