"""Catalogue and queue as they stood at one instant, while the node goes on writing both.

One instant for both: what is restored is what a power cut at that instant would have left, and that a node takes up by
itself, with nothing lost or doubled. A catalogue of a later instant than the queue's would hold jobs that nobody has
queued; an earlier one would know nothing of what the queue has done.

SQLite: nobody can commit to the queue while the catalogue's snapshot is taken (BEGIN IMMEDIATE); then both are copied
as their read transactions see them. The queue's journal is no WAL: its writers wait while it is copied, so it is first
copied beside itself. PostgreSQL: both stand in one database, and pg_dump works on an exported snapshot.
"""

import os
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dicomnode.config import Config
from dicomnode.errors import DatabaseError, SpoolError, UsageError
from dicomnode.files import make_folder, name_of
from dicomnode.operations.backup_format import CATALOG, DUMP, QUEUE, Told
from dicomnode.store.catalog.database import BUSY_S, failure_text, make_private

#: The catalogue's revision that brought the patients' key.
_KEYED = "0010"
_PAGES = 4096
_LOOK_S = 0.2


@dataclass(frozen=True)
class Contents:
    """What the catalogue of a snapshot knows.

    Attributes:
        revision: of its tables.
        patient_key: the fingerprint of the key under which it knows patients; "" before there was one.
        instances: the path of each.
        objects: the paths of what was, or is to be, delivered.
        volumes: the paths of the registry's volumes.
        studies_here: the names of the folders of those that have images.
        jobs: how many.
    """

    revision: str
    patient_key: str
    instances: frozenset[str]
    objects: frozenset[str]
    volumes: frozenset[str]
    studies_here: frozenset[str]
    jobs: int

    def folders(self, parts: Mapping[str, Path]) -> dict[str, list[str]]:
        """Return how the configuration and the paths spell each of the node's folders: a link may stand in one."""
        spool = {_spool_of(path) for path in self.instances | self.objects}
        found = {
            "spool": spool,
            "results": {_above(path, 3) for path in self.objects},
            "registry": {_above(path, 2) for path in self.volumes},
        }
        return {
            part: [str(root), *sorted(s for s in found.get(part, ()) if s != str(root) and s and _is_same(s, root))]
            for part, root in parts.items()
        }

    def instance_names(self, spool: Path) -> set[str]:
        """Return the names that the instances have in a backup; one that does not lie in the spool has none."""
        spelt = set(self.folders({"spool": spool})["spool"])
        found = ((_spool_of(path), path) for path in self.instances)
        return {f"spool{path.removeprefix(root)}" for root, path in found if root in spelt}


def _spool_of(path: str) -> str:
    return path.rpartition("/studies/")[0]


def _above(path: str, levels: int) -> str:
    return path.rsplit("/", levels)[0]


def _is_same(one: str, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


class Snapshot(Protocol):
    """The databases at one instant."""

    contents: Contents

    def write(self, folder: Path, told: Told) -> list[str]:
        """Write them below a backup's folder; return the files' names there. Raises SpoolError."""


@contextmanager
def take(config: Config) -> Iterator[Snapshot]:
    """Take a snapshot; it holds until the block ends.

    Raises:
        UsageError: the node has never run, or a program is missing.
        SpoolError: the database failed.
    """
    try:
        with ExitStack() as held:
            if config.storage.database_url:
                yield _PostgresqlSnapshot(config.storage.database_url, held)
            else:
                yield _SqliteSnapshot(config.storage.state, held)
    except (sqlite3.Error, psycopg.Error) as error:
        raise DatabaseError(failure_text(error)) from error


def database_bytes(config: Config) -> int:
    """Return about how much room a snapshot takes. Raises SpoolError."""
    if not config.storage.database_url:
        found = [config.storage.state / Path(name).name for name in (CATALOG, QUEUE)]
        return sum(path.stat().st_size for path in found if path.exists())
    try:
        with psycopg.connect(config.storage.database_url) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    except psycopg.Error as error:
        raise DatabaseError(failure_text(error)) from error
    return 0 if row is None else int(row[0])


def _contents(connection: Any) -> Contents:
    def column(query: str) -> list[Any]:
        return [row[0] for row in connection.execute(query).fetchall()]

    revision = column("SELECT version_num FROM alembic_version")[0]
    keys = column("SELECT fingerprint FROM patient_keys") if revision >= _KEYED else []
    return Contents(
        revision,
        keys[0] if keys else "",
        frozenset(column("SELECT path FROM instances")),
        frozenset(column("SELECT path FROM deliveries")),
        frozenset(column("SELECT volume FROM registry_scans WHERE volume <> ''")),
        frozenset(map(name_of, column("SELECT study_uid FROM studies WHERE instances > 0"))),
        column("SELECT count(*) FROM jobs")[0],
    )


class _SqliteSnapshot:
    """Two files."""

    def __init__(self, state: Path, held: ExitStack) -> None:
        self._state = state
        if not (state / Path(CATALOG).name).exists():
            raise UsageError(f"{state}: the node has never run with this configuration: there is nothing to back up")
        self._queue: sqlite3.Connection | None = None
        turn: sqlite3.Connection | None = None
        if (state / Path(QUEUE).name).exists():
            turn = held.enter_context(closing(_open(state / Path(QUEUE).name)))
            turn.execute("BEGIN IMMEDIATE")
            self._queue = held.enter_context(closing(_reading(state / Path(QUEUE).name)))
        self._catalog = held.enter_context(closing(_reading(state / Path(CATALOG).name)))
        if turn is not None:
            turn.execute("ROLLBACK")
        self.contents = _contents(self._catalog)

    def write(self, folder: Path, told: Told) -> list[str]:
        names = [CATALOG]
        if self._queue is not None:
            for left in self._state.glob(".queue.*.part"):
                left.unlink(missing_ok=True)
            beside = self._state / f".queue.{os.getpid()}.part"
            try:
                _copy(self._queue, beside, "queue", told)
                self._queue.close()
                with closing(_reading(beside)) as copy:
                    _copy(copy, folder / QUEUE, "queue", told)
            finally:
                beside.unlink(missing_ok=True)
            names.append(QUEUE)
        _copy(self._catalog, folder / CATALOG, "catalogue", told)
        return names


def _open(path: Path) -> sqlite3.Connection:
    # Not made where it is missing.
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None)


def _reading(path: Path) -> sqlite3.Connection:
    """Return a connection whose view no longer changes."""
    connection = _open(path)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _copy(source: sqlite3.Connection, target: Path, what: str, told: Told) -> None:
    make_folder(target.parent)
    target.unlink(missing_ok=True)
    make_private(str(target))
    (page_bytes,) = source.execute("PRAGMA page_size").fetchone()

    def progress(_status: int, left: int, total: int) -> None:
        told(what, (total - left) * page_bytes, total * page_bytes)

    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(copy, pages=_PAGES, progress=progress)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without -wal and -shm
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise SpoolError(f"the {what}'s database is damaged: {found}; run SQLite's integrity check on it")


class _PostgresqlSnapshot:
    """One dump."""

    def __init__(self, url: str, held: ExitStack) -> None:
        self._url = url
        connection = held.enter_context(closing(psycopg.connect(url, autocommit=True)))
        connection.execute("SET idle_in_transaction_session_timeout = 0")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        self._name = str(row[0])
        try:
            self.contents = _contents(connection)
        except psycopg.errors.UndefinedTable:
            raise UsageError("the node has never run on this database: there is nothing to back up") from None

    def write(self, folder: Path, told: Told) -> list[str]:
        target = folder / DUMP
        make_folder(target.parent)
        target.unlink(missing_ok=True)
        make_private(str(target))
        options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={self._name}", f"--file={target}"]
        run("pg_dump", self._url, options, lambda: told("database", target.stat().st_size, 0))
        return [DUMP]


def run(program: str, url: str, options: list[str], look: Any = lambda: None) -> None:
    """Run pg_dump or pg_restore on the database of `url`; its password is not among the arguments.

    Args:
        program: its name.
        url: the database's.
        options: besides the database.
        look: called now and then.

    Raises:
        UsageError: the program is not installed.
        SpoolError: it failed; with its first line, without rows.
    """
    given = conninfo_to_dict(url)
    password = given.pop("password", None)
    secret = {} if password is None else {"PGPASSWORD": str(password)}
    command = [program, "--no-password", *options, "--dbname", make_conninfo("", **given)]
    try:
        process = subprocess.Popen(
            command, env=os.environ | secret, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        raise UsageError(
            f"{program} is not installed: install PostgreSQL's client programs, of the server's version or newer"
        ) from None
    with process:
        said = ""
        while True:
            with suppress(subprocess.TimeoutExpired):
                said = process.communicate(timeout=_LOOK_S)[1]
                break
            look()
    if process.returncode:
        raise SpoolError(f"{program} failed: {said.splitlines()[0] if said else process.returncode}")
