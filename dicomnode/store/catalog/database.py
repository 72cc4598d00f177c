"""How the catalogue's database is opened and written: SQLite (one machine) or PostgreSQL (several)."""

import copy
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError, TimeoutError

from dicomnode.errors import DatabaseError, SpoolError
from dicomnode.files import FILE_MODE, tighten
from dicomnode.processes import sqlite_trouble
from dicomnode.store.catalog import migrate
from dicomnode.store.catalog.tables import workers
from dicomnode.store.patient_key import PatientKey
from dicomnode.store.records import Lease

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.pool import ConnectionPoolEntry

#: How long a writer waits for another process' write before it gives up, seconds.
BUSY_S = 20.0

#: A server that was cut off is noticed after seconds, not after the two hours of TCP's keep-alive (libpq's options).
_POSTGRESQL_CLIENT = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: The same the other way round: the locks of a client that was cut off within a transaction hold up the others.
_POSTGRESQL_SERVER = (
    "SET idle_in_transaction_session_timeout = '20s'",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = '20s'",
)
#: Of connections that only look. What is looked at comes by an index, a few rows at a time: for a long page the planner
#: would rather read all deliveries and jobs that there are into a hash table, and compile what it does.
_POSTGRESQL_READING = (
    "SET default_transaction_read_only = on",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",
)


class Database:
    """An open database and its two kinds of transaction. Every method raises SpoolError when the database fails.

    A worker works on a `leased` one: each of its writing transactions begins with a look at its lease, and holds the
    lease's row until it ends. Whoever declares the worker dead changes that row, so a write of a dead worker is either
    complete before, or does not happen.
    """

    def __init__(self, engine: Engine, patient_key: PatientKey) -> None:
        #: Makes the hashes by which the catalogue's records name patients.
        self.patient_key = patient_key
        self._engine = engine
        self._reader = engine.execution_options(reading=True)
        self._is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer, and its waiting is a polling: threads of one process queue here instead.
        self._turn: AbstractContextManager[object] = threading.Lock() if self._is_sqlite else nullcontext()
        self._insert: Any = sqlite.insert if self._is_sqlite else _postgresql_insert()
        self._joined: Connection | None = None
        self._lease: Lease | None = None
        self._lost: Callable[[], NoReturn] | None = None
        self._closed = _closing(engine)

    @classmethod
    def open(cls, url: str, state: Path | None = None) -> Self:
        """Open a database; tables are made, and brought up to date, where needed.

        Args:
            url: `sqlite:////path.db` or `postgresql+psycopg://…`.
            state: the folder of the patients' key (`storage.state`); None: the SQLite file's.
        """
        return cls(*open_database(url, state))

    @classmethod
    def reading(cls, url: str, state: Path | None = None) -> Self:
        """Open a database to look at it: nothing is made, brought up to date or written, and the server sees to that.

        Arguments as of `open`.

        Raises:
            SpoolError: there is none, it is of another version, or as with `open`.
        """
        return cls(*open_database(url, state, reading=True))

    def leased(self, lease: Lease, lost: Callable[[], NoReturn]) -> Self:
        """Return the same database for the holder of `lease`; `lost` is called where the lease is no longer valid."""
        view = copy.copy(self)
        view._lease, view._lost = lease, lost
        return view

    def close(self) -> None:
        """Close every connection; one that a thread still uses, when it gives it back."""
        self._closed.set()
        self._engine.dispose()

    @contextmanager
    def together(self) -> Iterator[Self]:
        """Yield the same database for one thread, with all that it writes in one transaction: one wait for the disk.

        Others do not see it before the end, and an exception that leaves takes all of it back. SQLite's other writers
        wait meanwhile. Not for images, which have a connection of their own (`recording`).
        """
        with self._write() as connection:
            view = copy.copy(self)
            view._joined = connection
            yield view

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if self._joined is not None:
            try:
                with self._joined.begin_nested():
                    yield self._joined
            except SQLAlchemyError as error:
                raise database_error(error) from error
            return
        valid = True
        try:
            with self._turn, self._engine.begin() as connection:
                valid = self._lease is None or self._holds(connection, self._lease)
                if valid:
                    yield connection
        except SQLAlchemyError as error:
            raise database_error(error) from error
        if not valid and self._lost is not None:
            self._lost()

    @staticmethod
    def _holds(connection: Connection, lease: Lease) -> bool:
        mine = select(workers.c.epoch).where(workers.c.name == lease.name).with_for_update(read=True)
        return bool(connection.execute(mine).scalar() == lease.epoch)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        if self._joined is not None:
            try:
                yield self._joined
            except SQLAlchemyError as error:
                raise database_error(error) from error
            return
        try:
            with self._reader.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise database_error(error) from error


def open_database(url: str, state: Path | None, *, reading: bool = False) -> tuple[Engine, PatientKey]:
    """Return an engine on a database whose tables exist and are up to date, and the key of its patients.

    Args:
        url: as of `Database.open`.
        state: likewise.
        reading: nothing can be written, and nothing is brought up to date.

    Raises:
        SpoolError: the database cannot be reached, was made by a newer dicomnode, or its patients' key is not here.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if (trouble := sqlite_trouble()) is not None:
                raise SpoolError(trouble)
            if reading:
                _require(parsed.database)
            else:
                make_private(parsed.database)
            engine = create_engine(parsed, connect_args={"timeout": BUSY_S}, pool_size=16, max_overflow=64)
            event.listen(engine, "connect", _prepare_sqlite_reading if reading else _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            engine = create_engine(
                parsed, pool_pre_ping=True, pool_size=16, max_overflow=64, connect_args=_POSTGRESQL_CLIENT
            )
            event.listen(engine, "connect", _prepare_postgresql)
            if reading:
                event.listen(engine, "connect", _prepare_postgresql_reading)
        if state is None:
            if parsed.get_backend_name() != "sqlite" or not parsed.database:
                raise SpoolError("the catalogue's URL names no folder for its patients' key: give one (storage.state)")
            state = Path(parsed.database).parent
        try:
            key = migrate.require_up_to_date(engine, state) if reading else migrate.bring_up_to_date(engine, state)
        except BaseException:
            engine.dispose()
            raise
    except (ArgumentError, ImportError) as error:
        raise SpoolError(
            f"the catalogue's URL is not usable ({error}); use sqlite:////absolute/path.db or postgresql+psycopg://…"
        ) from error
    except SQLAlchemyError as error:
        raise database_error(error) from error
    return engine, key


def _closing(engine: Engine) -> threading.Event:
    """Return what, once it is set, has connections closed that come back: `dispose` knows only those that are back."""
    closed = threading.Event()

    def come_back(_connection: object, record: "ConnectionPoolEntry") -> None:
        if closed.is_set():
            record.invalidate()

    event.listen(engine, "checkin", come_back)
    return closed


def _require(path: str | None) -> None:
    if not path or not Path(path).is_file():
        raise SpoolError(f"{path}: there is no catalogue; the node has never run with this configuration")


def make_private(path: str | None) -> None:
    """Make a SQLite file its owner's alone: SQLite gives the -wal and -shm beside it the same rights.

    The file is not opened: closing it would give back this process's own locks on it (fcntl(2)), SQLite's too, and
    another process could then delete the -wal into which this one goes on writing
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        SpoolError: it cannot be made.
    """
    if not path or path == ":memory:":
        return
    try:
        with suppress(FileExistsError):
            os.mknod(path, FILE_MODE | stat.S_IFREG)
        for suffix in ("", "-wal", "-shm"):
            tighten(Path(path + suffix))
    except PermissionError:
        pass  # another user's: opening it tells more
    except OSError as error:
        raise SpoolError(failure_text(error)) from error


def database_error(error: SQLAlchemyError) -> SpoolError:
    """Return the driver's own words, without the statement and its values."""
    cause = getattr(error, "orig", None)
    text = failure_text(cause or type(error).__name__)
    cut_off = isinstance(error, DBAPIError) and error.connection_invalidated
    passing = cut_off or isinstance(error, OperationalError | InterfaceError | TimeoutError)
    return DatabaseError(text) if passing else SpoolError(text)


def failure_text(cause: object) -> str:
    """Return what a person is told when the database fails."""
    # The lines below the first quote the row: «Key (study_uid)=(…) already exists».
    first = next(iter(str(cause).splitlines()), type(cause).__name__)
    return f"the catalogue's database failed: {first}; check its disk, URL and rights"


def _postgresql_insert() -> Any:
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  (a node without it starts sooner)

    return postgresql.insert


def _prepare_postgresql(connection: "psycopg.Connection[tuple[object, ...]]", _record: Any) -> None:
    with connection.cursor() as cursor:
        for setting in _POSTGRESQL_SERVER:
            cursor.execute(setting)
    connection.commit()


def _prepare_postgresql_reading(connection: "psycopg.Connection[tuple[object, ...]]", _record: Any) -> None:
    for setting in _POSTGRESQL_READING:
        connection.execute(setting)
    connection.commit()


def _prepare_sqlite_reading(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver would start its own deferred transactions; _begin_sqlite starts ours.
    connection.isolation_level = None
    # WAL: readers don't wait for the receiver. FULL: a commit is on the disk before the sender hears «success»
    # (NORMAL would lose the last commits in a power cut: `recording` says where that is harmless).
    _use_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: sqlite3.Connection) -> None:
    # SQLite's busy time-out does not hold for this change: of several processes that open a new file at once, some are
    # told at once that it is locked.
    last = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > last:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads and then writes would fail at once when another process wrote in between, whatever the
    # busy time-out: writers take the lock first.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
