"""`dicomnode import`: old studies from a folder come in as if a sender had sent them (`reception.c_store`).

The same checks, quarantine and rules for conflicts; each image is on the disk and recorded before it counts. What came
is noted study by study in `storage.state`: a command that was killed goes on, and no study comes twice.
"""

import hashlib
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.files import make_folder, write_whole
from dicomnode.network.commands import StoreAnswer, StoreRequest
from dicomnode.operations import import_files
from dicomnode.operations.audited import note_command, noted
from dicomnode.operations.import_files import NotTaken, SourceObject
from dicomnode.operations.pacing import Pacing, Rate, Told, alone
from dicomnode.reception.c_store import OUT_OF_RESOURCES, SUCCESS, Reception
from dicomnode.reception.process import recover
from dicomnode.reception.quarantine import Quarantine
from dicomnode.store import process_names, restoring
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Closed
from dicomnode.store.spool import Spool

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
#: Attempts at an image for which there was no room, or no database, a few seconds apart.
_ATTEMPTS = 5
_PAUSE_S = 2.0
#: No status of DICOM: the file went away, or its disk failed.
UNREADABLE = 0xFFFF


_NO_RATE = Rate()


@dataclass(frozen=True)
class ImportOptions:
    """What a person may say of an import.

    Attributes:
        calling_ae: the AE title by which rules know what comes so.
        called_ae: the AE title of ours that it calls; "" for the node's own.
        rate: see `Rate`.
        queue: wait while so many studies are to be analysed; 0: never.
        keep: results go to no destination.
    """

    calling_ae: str = "IMPORT"
    called_ae: str = ""
    rate: Rate = _NO_RATE
    queue: int = 100
    keep: bool = False


@dataclass
class ImportReport:
    """What became of a folder. `present`: studies that an earlier call has brought, of which nothing has changed."""

    folder: str
    files: int = 0
    bytes: int = 0
    studies: int = 0
    present: int = 0
    imported: int = 0
    stored: int = 0
    ignored: int = 0
    not_taken: list[dict[str, str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    dry_run: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every file that is a DICOM object came in."""
        return not self.refused and not any(one["code"] != "not-dicom" for one in self.not_taken)

    def to_json(self) -> str:
        """Return it as the command prints it."""
        return json.dumps(asdict(self), indent=2)


#: Follows the work: what is done, how much of it, of how much (0: not known).
Follow = Callable[[str, int, int], None]


def run(
    config: Config,
    folder: Path,
    options: ImportOptions,
    follow: Follow = lambda _what, _done, _total: None,
    told: Told = lambda _text: None,
    *,
    dry_run: bool = False,
) -> ImportReport:
    """Bring in what lies below a folder.

    Raises:
        UsageError: the folder is none, or the node's own; another import runs.
        SpoolError: spool or catalogue failed; what came until then stays, and the same call goes on.
    """
    _check(config, folder, options)
    if dry_run:
        return _reported(config, folder, follow)[0]
    restoring.refuse(config.storage.state)
    make_folder(config.storage.state)
    with alone(config.storage.state, "import"):
        report, sources = _reported(config, folder, follow)
        with closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog, noted(config, catalog):
            details = {"folder": str(folder), "studies": str(report.studies)}
            note_command(config, "import", details, catalog=catalog)
            work = _Import(config, catalog, folder, options, report, told)
            work.run(sources, follow)
    return report


def _check(config: Config, folder: Path, options: ImportOptions) -> None:
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    real = folder.resolve()
    for own in config.private_folders:
        other = own.resolve()
        if real == other or real in other.parents or other in real.parents:
            raise UsageError(f"{folder} and the node's own {own} lie within each other: give another folder")
    ours = (config.node.ae_title, *config.routing.ae_titles)
    if options.called_ae and options.called_ae not in ours:
        raise UsageError(f"--to {options.called_ae!r} is not an AE title of this node; it has {', '.join(ours)}")


def _reported(config: Config, folder: Path, follow: Follow) -> tuple[ImportReport, import_files.Sources]:
    sources = import_files.survey(folder, config.node.private_storage, lambda n: follow("reading headers", n, 0))
    journal = _Journal(config, folder)
    report = ImportReport(
        str(folder),
        sources.files,
        sum(sources.sizes.values()),
        len(sources.studies),
        present=sum(journal.has(uid, sources) for uid in sources.studies),
        ignored=sources.ignored,
        not_taken=[_row(one) for one in sources.not_taken],
        dry_run=True,
    )
    return report, sources


def _row(one: NotTaken) -> dict[str, str]:
    return {"file": str(one.path), "code": one.code, "text": one.text}


class _Journal:
    """What of a folder has come, by study, in a file of `storage.state`."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._folder = str(folder.resolve())
        name = hashlib.sha256(self._folder.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._path = config.storage.state / "import" / f"{name}.json"
        self.last_at: float | None = None
        self._done: dict[str, dict[str, Any]] = {}
        try:
            read = json.loads(self._path.read_text("utf-8"))
            self._done, self.last_at = dict(read["studies"]), read["last_at"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            # Nothing is lost by that: what is here already is known by its content.
            log.warning("%s cannot be read: the folder is gone through once more", self._path)

    def has(self, study_uid: str, sources: import_files.Sources) -> bool:
        """Whether all of a study's files came before, as many and as large as they are now."""
        before = self._done.get(study_uid)
        return before is not None and before["what"] == _what(study_uid, sources)

    def refused(self, study_uid: str) -> list[dict[str, str]]:
        """Return what of a study was refused then."""
        return list(self._done[study_uid]["refused"])

    def note(self, study_uid: str, sources: import_files.Sources, refused: Sequence[dict[str, str]], at: float) -> None:
        """Note that a study has come; on the disk when this returns."""
        self.last_at = at
        self._done[study_uid] = {"what": _what(study_uid, sources), "refused": list(refused)}
        kept = {"folder": self._folder, "last_at": at, "studies": self._done}
        write_whole(self._path, json.dumps(kept))


def _what(study_uid: str, sources: import_files.Sources) -> list[int]:
    return [len(sources.studies[study_uid]), sources.sizes[study_uid]]


class _Import:
    """One import, from its first study to its last."""

    def __init__(
        self, config: Config, catalog: Catalog, folder: Path, options: ImportOptions, report: ImportReport, told: Told
    ) -> None:
        storage = config.storage
        self._config, self._catalog, self._options, self._report = config, catalog, options, report
        self._spool = Spool(storage.spool)
        self._quarantine = Quarantine(self._spool, int(storage.quarantine_gb * 1e9))
        self._largest, self._least = int(storage.largest_object_gb * 1e9), int(storage.minimum_free_gb * 1e9)
        self._pacing = Pacing(config, catalog, options.rate, options.queue, told)
        self._journal = _Journal(config, folder)

    def run(self, sources: import_files.Sources, follow: Follow) -> None:
        report, done = self._report, 0
        report.dry_run, report.present = False, 0
        recover(self._spool, self._catalog)
        for study_uid, paths in sources.studies.items():
            if self._journal.has(study_uid, sources):
                report.present += 1
                report.refused += self._journal.refused(study_uid)
            else:
                self._pacing.before_study(self._journal.last_at)
                began, refused = time.time(), list[dict[str, str]]()
                with self._association(study_uid, began) as row:
                    for number, path in enumerate(paths, start=1):
                        refused += self._bring(path, row)
                        follow("importing", done + number, report.files)
                self._journal.note(study_uid, sources, refused, began)
                report.imported += 1
                report.refused += refused
            done += len(paths)
            follow("importing", done, report.files)

    @contextmanager
    def _association(self, study_uid: str, now: float) -> Iterator[int]:
        """Yield the row of what counts as one association; the study settles after it, and not before."""
        options = self._options
        called = options.called_ae or self._config.node.ae_title
        is_noted = bool(study_uid) and self._catalog.begin_bulk(
            study_uid, "import", keep=options.keep, patient="", now=now
        )
        row = self._catalog.begin_association(
            process_names.current(), options.calling_ae, called, socket.gethostname(), now
        )
        how: Closed = "aborted"
        try:
            yield row
            how = "released"
        finally:
            self._catalog.end_association(row, how, time.time())
        if is_noted and self._catalog.study(study_uid) is None:
            self._catalog.forget_bulk(study_uid)  # all of it was refused
        elif is_noted:
            self._catalog.end_bulk(study_uid, time.time())

    def _bring(self, path: Path, row: int) -> list[dict[str, str]]:
        """Bring one file. Returns why it was not stored, if it was not.

        Raises:
            SpoolError: there is no room, or no database, for longer than a moment.
        """
        one = import_files.read(path, self._config.node.private_storage)  # it may have changed since the survey
        bad = one if isinstance(one, NotTaken) else import_files.damage(path)
        if isinstance(one, NotTaken) or bad is not None:
            assert bad is not None
            return [_row(bad)]
        for attempt in range(_ATTEMPTS):
            self._pacing.before_image()
            answer = self._store(one, row)
            if answer.status == SUCCESS:
                self._report.stored += 1
                return []
            if answer.status != OUT_OF_RESOURCES or one.size > self._largest:
                code = "unreadable" if answer.status == UNREADABLE else f"0x{answer.status:04X}"
                return [{"file": str(path), "code": code, "text": answer.comment}]
            if attempt < _ATTEMPTS - 1:
                time.sleep(_PAUSE_S)
        raise SpoolError(f"{path}: cannot be stored now ({answer.comment}); the same command goes on from here")

    def _store(self, one: SourceObject, row: int) -> StoreAnswer:
        request = StoreRequest(1, 1, one.sop_class_uid, one.sop_instance_uid)
        coming = Reception(
            request,
            one.sop_class_uid,
            one.syntax,
            self._spool,
            self._catalog,
            quarantine=self._quarantine,
            largest=self._largest,
            has_space=lambda: self._spool.free_bytes() >= self._least,
            association_id=lambda: row,
        )
        try:
            with one.path.open("rb") as file:
                file.seek(one.offset)
                while data := file.read(_CHUNK):
                    coming.write(memoryview(data))
        except OSError as error:
            coming.abandon()
            return StoreAnswer(UNREADABLE, f"it cannot be read: {error.strerror}")
        except BaseException:
            coming.abandon()
            raise
        return coming.finish()
