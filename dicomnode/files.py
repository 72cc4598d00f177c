"""Files that a reader sees whole or not at all, and those that come with the program."""

import errno
import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees it whole or not at all, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
