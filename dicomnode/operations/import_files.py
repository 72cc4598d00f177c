"""The files of a folder as `dicomnode import` takes them: which are DICOM objects, and of which study.

Sources are opened for reading, and nothing else is done to them.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from dicomnode.analysis.series.headers import Unreadable, is_ignored, read_headers
from dicomnode.analysis.series.selection import seek_data_set
from dicomnode.logs import uid as shown
from dicomnode.network import contexts
from dicomnode.network.scan import HeaderError, scan
from dicomnode.reception.header import parse
from dicomnode.reception.held_header import syntax_of
from dicomnode.words.numerals import plural

_SOP_CLASS, _SOP_INSTANCE, _LAST_OF_META = 0x00020002, 0x00020003, 0x0002FFFF
_META_START = 144  # preamble, prefix, (0002,0000) with the length of group 2 (PS3.10 7.1)
_DICOMDIR = "DICOMDIR"


@dataclass(frozen=True)
class SourceObject:
    """A DICOM object in a file.

    Attributes:
        sop_class_uid: as the File Meta Information names it, which a sender would name too; else the data set.
        sop_instance_uid: likewise.
        syntax: the transfer syntax; without File Meta Information, the one that it was read in.
        offset: where its data set begins, bytes.
        study_uid: "" where the data set cannot be parsed: it is refused as one that was sent.
    """

    path: Path
    size: int
    sop_class_uid: str
    sop_instance_uid: str
    syntax: UID
    offset: int
    study_uid: str


@dataclass(frozen=True)
class NotTaken:
    """A file that is not brought, and why: `code` is for scripts, `text` for people."""

    path: Path
    code: str
    text: str


@dataclass
class Sources:
    """What a folder holds: the files of each study in their order, and what is left out.

    `bytes` and `ignored` count: hidden files and folders and DICOMDIRs, which nobody sends, are ignored.
    """

    studies: dict[str, list[Path]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    not_taken: list[NotTaken] = field(default_factory=list)
    ignored: int = 0

    @property
    def files(self) -> int:
        """How many files are objects."""
        return sum(map(len, self.studies.values()))


def survey(folder: Path, private: Collection[str], looked_at: Callable[[int], None] = lambda _count: None) -> Sources:
    """Read the headers of all files below a folder.

    Args:
        folder: of any depth; links to folders are not followed.
        private: SOP Class UIDs outside the standard that the node stores too.
        looked_at: is told how many files have been looked at.
    """
    found = Sources()
    for count, one in enumerate(_files(folder), start=1):
        if isinstance(one, NotTaken):
            found.not_taken.append(one)
        elif is_ignored(one.name):
            found.ignored += 1
        else:
            _sort_in(found, read(one, private))
        looked_at(count)
    return found


def _sort_in(found: Sources, one: SourceObject | NotTaken) -> None:
    if isinstance(one, SourceObject):
        found.studies.setdefault(one.study_uid, []).append(one.path)
        found.sizes[one.study_uid] = found.sizes.get(one.study_uid, 0) + one.size
    elif one.code == _DICOMDIR:
        found.ignored += 1
    else:
        found.not_taken.append(one)


def _files(folder: Path) -> Iterator[Path | NotTaken]:
    """Yield the files below a folder, by path, hidden folders in place of what is in them, and what cannot be read."""
    closed: list[OSError] = []
    for directory, folders, names in os.walk(folder, onerror=closed.append):
        hidden = [name for name in folders if is_ignored(name, is_folder=True)]
        folders[:] = sorted(set(folders) - set(hidden))
        yield from (Path(directory, name) for name in sorted([*names, *hidden]))
    for error in closed:
        yield NotTaken(Path(error.filename or folder), "unreadable", f"the folder cannot be read: {error.strerror}")


def read(path: Path, private: Collection[str]) -> SourceObject | NotTaken:
    """Return what a file holds, or why it is not taken; of a damaged one only what a receiver would notice."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return NotTaken(path, "not-a-file", "it is a device, pipe or socket")
        found = _as_sent(path, about.st_size) or _without_meta(path, about.st_size)
    except OSError as error:
        return NotTaken(path, "unreadable", f"it cannot be read: {error.strerror}")
    return found if isinstance(found, NotTaken) else _offered(found, private)


def damage(path: Path) -> NotTaken | None:
    """Return why a file that is an object is not whole; None where it is. No sender could send a part of one."""
    headers, unreadable = read_headers([path])
    if unreadable and unreadable[0].reason.code in ("truncated", "too-large", "unreadable"):
        return _unreadable(unreadable[0])
    missing = max((header.missing_bytes for header in headers), default=0)
    return NotTaken(path, "truncated", f"the file lacks {plural(missing, 'byte')} of its pixels") if missing else None


def _as_sent(path: Path, size: int) -> SourceObject | None:
    """Return an object with File Meta Information; None where there is none that says how it is encoded."""
    with path.open("rb") as file:
        try:
            syntax = syntax_of(file)
            offset = file.tell()
            file.seek(_META_START)
            names = scan(
                BytesIO(file.read(offset - _META_START)),
                ExplicitVRLittleEndian,
                {_SOP_CLASS, _SOP_INSTANCE},
                _LAST_OF_META,
            )
        except HeaderError:
            return None
        sop_class, instance = (
            names.get(tag, (b"", b""))[1].decode("latin-1").strip(" \0") for tag in (_SOP_CLASS, _SOP_INSTANCE)
        )
        file.seek(offset)
        try:
            header = parse(file, syntax)
        except HeaderError:
            return SourceObject(path, size, sop_class, instance, syntax, offset, "")
    sop_class, instance = sop_class or header.sop_class_uid, instance or header.sop_instance_uid
    return SourceObject(path, size, sop_class, instance, syntax, offset, header.study_uid)


def _without_meta(path: Path, size: int) -> SourceObject | NotTaken:
    """Read as the analysis would, which guesses how a file without File Meta Information is encoded."""
    headers, unreadable = read_headers([path])
    if unreadable:
        return _unreadable(unreadable[0])
    syntax = UID(str(headers[0].source.file_meta.TransferSyntaxUID))
    with path.open("rb") as file:
        seek_data_set(file)
        offset = file.tell()
        try:
            header = parse(file, syntax)
        except HeaderError as error:
            return NotTaken(path, "not-dicom", f"its header cannot be read: {error}")
    return SourceObject(path, size, header.sop_class_uid, header.sop_instance_uid, syntax, offset, header.study_uid)


def _offered(one: SourceObject, private: Collection[str]) -> SourceObject | NotTaken:
    """Take what a sender might negotiate with this node."""
    if one.sop_class_uid == MediaStorageDirectoryStorage:
        return NotTaken(one.path, _DICOMDIR, "it is a directory of a medium")
    offered = contexts.negotiable([one.sop_class_uid], private)
    if not offered or one.sop_class_uid == contexts.VERIFICATION:
        return NotTaken(one.path, "not-storage", f"this node does not store SOP Class {shown(one.sop_class_uid)}")
    if one.syntax not in offered[0].transfer_syntax:
        return NotTaken(one.path, "transfer-syntax", f"this node does not take {one.syntax.name}")
    return one


def _unreadable(one: Unreadable) -> NotTaken:
    return NotTaken(one.path, one.reason.code, one.reason.text)
