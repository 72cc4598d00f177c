"""How a database is opened beside others, and how it is closed."""

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dicomnode.errors import SpoolError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.database import make_private


def test_a_connection_in_use_at_the_close_is_closed_when_it_comes_back(catalog: Catalog) -> None:
    """Else it lies in a pool that nobody has any more, until the garbage collector finds it."""
    with catalog._read() as connection:
        used: Any = connection.connection.dbapi_connection
        catalog.close()
        assert is_open(used)
    assert not is_open(used)


def test_a_connection_goes_back_to_the_pool_of_an_open_catalogue(catalog: Catalog) -> None:
    with catalog._read() as connection:
        used: Any = connection.connection.dbapi_connection
    assert is_open(used)


def test_who_opens_a_catalogue_again_still_holds_it(tmp_path: Path) -> None:
    """Whoever closes it as the last one deletes its -wal: another process must not take itself for that one."""
    path = tmp_path / "catalog.sqlite"
    url = f"sqlite:///{path}"
    read = f"import sqlite3\nc = sqlite3.connect({str(path)!r})\nc.execute('SELECT count(*) FROM jobs')\nc.close()"
    with closing(Catalog.open(url, tmp_path)) as catalog:
        before = catalog.begin_association("run", "A", "NODE", "192.0.2.1", 1.0)
        Catalog.open(url, tmp_path).close()
        Catalog.reading(url, tmp_path).close()
        subprocess.run([sys.executable, "-c", read], check=True)
        assert path.with_name("catalog.sqlite-wal").exists()
        after = catalog.begin_association("run", "B", "NODE", "192.0.2.1", 2.0)
        with closing(Catalog.open(url, tmp_path)) as other, other._read() as connection:
            ids = {row[0] for row in connection.exec_driver_sql("SELECT id FROM associations")}
        assert ids == {before, after}
    with closing(sqlite3.connect(path)) as whole:
        assert whole.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_new_file_is_its_owners_alone_and_an_old_one_becomes_it(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    umask = os.umask(0)
    try:
        make_private(str(path))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_size == 0
    path.chmod(0o644)
    make_private(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def is_open(connection: Any) -> bool:
    if not isinstance(connection, sqlite3.Connection):
        return not connection.closed
    try:
        connection.total_changes  # noqa: B018  (raises where it is closed)
    except sqlite3.ProgrammingError:
        return False
    return True


def test_a_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.processes.SQLITE_NEEDED", (99, 0))
    with pytest.raises(SpoolError, match=r"SQLite 3\.[0-9.]+ is too old: .* at least 99\.0 is needed"):
        Catalog.open(f"sqlite:///{tmp_path}/catalog.sqlite")
    assert list(tmp_path.iterdir()) == []
