"""What a backup's folder holds, and where in a node each part of it belongs.

```
backup.json      written last: without it the backup is not whole. Versions, folders of before, the digest of SHA256SUMS
SHA256SUMS       every other file, as `sha256sum --check` reads it
spool/           studies, quarantine, replaced, leaving: all but incoming
results/         but for what an unfinished analysis has left: it begins anew
registry/        the volumes
weights/         bundles, segmentation weights
audit/           events on their way to the outbox
database/        catalog.sqlite and queue.sqlite, or dicomnode.pgdump
configuration/   ae_config.toml, and in files/ what it names, each under its key (tls.certificate)
unfinished.json  a backup that is being made, or was cut short
```
No key is in it: keys go to a folder of their own.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import BaseModel

from dicomnode import files
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations import exposure
from dicomnode.registry.key import KEY_FILE as PSEUDONYMS_KEY
from dicomnode.store.patient_key import KEY_FILE as PATIENT_KEY
from dicomnode.store.results_folder import ATTEMPT, LABELS, SOURCES, VIEWS
from dicomnode.words.numerals import plural

FORMAT: Final = 1
MANIFEST, SUMS, UNFINISHED = "backup.json", "SHA256SUMS", "unfinished.json"
CONFIGURATION, NAMED = "configuration/ae_config.toml", "configuration/files"
CATALOG, QUEUE, DUMP = "database/catalog.sqlite", "database/queue.sqlite", "database/dicomnode.pgdump"
#: The state of an analysis that goes on: a restored one begins anew.
_OF_ANALYSES = {ATTEMPT, LABELS, VIEWS, SOURCES}
#: What nobody has heard success for; every other area of the spool comes along.
_NOT_OF_SPOOL = "incoming"
#: Keys of the configuration that stand for folders: these are parts of the backup, or of no use to it.
_FOLDERS = {"storage.spool", "storage.results", "storage.state", "analysis.weights", "registry.folder"}
_FOLDERS |= {"retraining.folder"}
#: Keys that are text and name a file.
_FILES_AS_TEXT = {"file", "ca_file", "certificate", "key"}

#: Told of progress: what is done, and how many bytes of how many.
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BackupManifest:
    """`backup.json`.

    Attributes:
        dicomnode: the version that made it.
        made_at: UTC seconds since 1970: what was acknowledged, or done, by then is in it.
        database: "sqlite" or "postgresql".
        revision: of the catalogue.
        patient_key: the fingerprint of the catalogue's key; "" where it has none yet.
        folders: where the parts lay, by their names: each folder as the configuration and the catalogue spell it.
        links: by its name, where a link in the weights' folder led.
        keys: the files that belong to it and are not in it.
        files: in SHA256SUMS.
        bytes: of these.
        sha256: of SHA256SUMS.
        instances: in the catalogue.
        jobs: in the catalogue.
        missing: instances whose file was not in the spool when the backup was made.
        format: of the backup.
    """

    dicomnode: str
    made_at: float
    database: str
    revision: str
    patient_key: str
    folders: dict[str, list[str]]
    links: dict[str, str]
    keys: list[str]
    files: int
    bytes: int
    sha256: str
    instances: int
    jobs: int
    missing: int
    format: int = FORMAT

    def to_json(self) -> str:
        """As the file has it."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Sums:
    """SHA256SUMS: the digest of each file, by its path in the backup."""

    digests: dict[str, str] = field(default_factory=dict)

    def to_text(self) -> str:
        """As coreutils' sha256sum writes it, sorted."""
        return "".join(f"{digest}  {name}\n" for name, digest in sorted(self.digests.items()))

    @classmethod
    def of(cls, text: str) -> "Sums":
        """Read it. Lines that are none (the last one of a log that was cut short) are left out."""
        rows = (line.split("  ", 1) for line in text.split("\n"))
        return cls({row[1]: row[0] for row in rows if len(row) == 2 and len(row[0]) == 64})


def read(folder: Path) -> tuple[BackupManifest, Sums]:
    """Read what a whole backup says of itself.

    Raises:
        UsageError: there is no backup, or it was cut short, or is of a newer format.
        SpoolError: it is damaged.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        if (folder / UNFINISHED).exists():
            raise UsageError(
                f"{folder}: this backup was cut short and is not whole; `dicomnode backup {folder}` resumes it"
            ) from None
        raise UsageError(f"{folder}: no backup ({MANIFEST} is missing); give the folder that `backup` wrote") from None
    except ValueError as error:
        raise SpoolError(f"{folder / MANIFEST} is damaged ({error}): take another copy of the backup") from None
    number = found.get("format") if isinstance(found, dict) else None
    if not isinstance(number, int) or number > FORMAT:
        raise UsageError(f"{folder} has format {number}, but this dicomnode reads {FORMAT}: use the version of then")
    try:
        manifest = BackupManifest(**found)
    except TypeError:
        raise SpoolError(f"{folder / MANIFEST} is damaged: take another copy of the backup") from None
    if not (folder / SUMS).is_file() or files.sha256_of(folder / SUMS) != manifest.sha256:
        raise SpoolError(f"{folder / SUMS} is not the one that {MANIFEST} names: take another copy of the backup")
    sums = Sums.of((folder / SUMS).read_text("utf-8"))
    if len(sums.digests) != manifest.files:
        raise SpoolError(
            f"{folder / SUMS} names {plural(len(sums.digests), 'file')} of {manifest.files}: take another copy"
        )
    return manifest, sums


def parts(config: Config) -> dict[str, Path]:
    """Return the node's folders by the name of their part of the backup."""
    storage = config.storage
    return {
        "spool": storage.spool,
        "results": storage.results,
        "registry": config.registry.folder,
        "weights": config.analysis.weights,
        "audit": storage.state / "audit",
    }


def walk(part: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (path in the backup, file) of every file of a part. Links are left out, and what is being written.

    In the weights' folder a link that leads elsewhere (to another disk) stands for what it leads to.
    """
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.name.startswith(".") or (part == "spool" and path.name == _NOT_OF_SPOOL):
            continue
        if path.is_symlink() and (part != "weights" or is_beside(path)):
            continue
        if path.is_file():
            if _belongs(part, path.name):
                yield f"{part}/{path.name}", path
            continue
        for folder, inner, names in os.walk(path):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                file = Path(folder, name)
                if _belongs(part, name) and file.is_file() and not file.is_symlink():
                    yield str(PurePosixPath(part, *file.relative_to(root).parts)), file


def walk_all(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield as `walk`, of every part."""
    for part, root in parts(config).items():
        yield from walk(part, root)


def _belongs(part: str, name: str) -> bool:
    if name.startswith("."):
        return False
    if part == "audit":
        return name.endswith((".journal", ".sha256"))
    if part == "registry":
        return name != PSEUDONYMS_KEY
    return part != "results" or name not in _OF_ANALYSES


def is_beside(link: Path) -> bool:
    """Whether a link of the weights' folder leads to a folder beside it, as `current` does."""
    return link.is_symlink() and len(link.readlink().parts) == 1


def named_files(config: Config) -> dict[str, Path]:
    """Return the files that the configuration names, by their key, such as "destination.pacs.tls_certificate"."""
    # What [tls] gives to every peer is one file, that of the shortest key.
    found: dict[Path, str] = {}
    for key, path in sorted(_named(config, ""), key=lambda one: (len(one[0]), one[0])):
        if key not in _FOLDERS:
            found.setdefault(path, key)
    return {key: path for path, key in found.items()}


def _named(table: BaseModel, prefix: str) -> Iterator[tuple[str, Path]]:
    for name in type(table).model_fields:
        value = getattr(table, name)
        several = isinstance(value, tuple)
        for number, one in enumerate(value if several else (value,), start=1):
            key = f"{prefix}{name}" + (f".{getattr(one, 'name', number)}" if several else "")
            if isinstance(one, BaseModel):
                yield from _named(one, f"{key}.")
            elif isinstance(one, Path):
                yield key, one
            elif isinstance(one, str) and one.startswith("file:"):
                yield key, Path(one.removeprefix("file:"))
            elif isinstance(one, str) and one and name in _FILES_AS_TEXT:
                yield key, Path(one)


def keys(config: Config) -> dict[str, Path]:
    """Return the files that hold secrets, by the name under which a folder of keys has them."""
    secret = set(exposure.secret_files(config))
    named = {key: path for key, path in named_files(config).items() if path in secret}
    own = {PATIENT_KEY: config.storage.state / PATIENT_KEY, PSEUDONYMS_KEY: config.registry.folder / PSEUDONYMS_KEY}
    return own | named


def plain_files(config: Config) -> dict[str, Path]:
    """Return the files that the configuration names and that hold no secret, by their key."""
    secret = set(keys(config).values())
    return {key: path for key, path in named_files(config).items() if path not in secret}
