"""Databases for tests: a new SQLite file, or a PostgreSQL server of our own."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, create_engine, event, inspect, text

from dicomnode.store.patient_key import PatientKey
from tests.helpers.prerequisites import program


class PostgreSQL:
    """A server of our own on a Unix socket, and on a TCP port of `address` where one is given.

    Raises MissingError where PostgreSQL is not installed: tests ask for `peer("initdb", "postgresql")` first.
    """

    def __init__(self, folder: Path, address: str = "", port: int = 5432) -> None:
        found = program("initdb", "postgresql")
        self.folder, self.port = folder, port
        self.data = folder / "data"
        self._pg_ctl = Path(found).with_name("pg_ctl")
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            for path in (folder, *folder.parents):
                if not path.stat().st_mode & 0o001:
                    path.chmod(0o755)
            shutil.chown(folder, self._user)
        subprocess.run(
            [found, "-D", self.data, "-U", "node", "-A", "trust"], check=True, capture_output=True, user=self._user
        )
        if address:
            with (self.data / "pg_hba.conf").open("a") as file:
                file.write("host all all all trust\n")
        self._options = (
            f"-c listen_addresses='{address}' -c port={port} -c unix_socket_directories={folder} -c max_connections=200"
        )

    @property
    def url(self) -> str:
        """As in `storage.database_url`."""
        return f"postgresql://node@/postgres?host={self.folder}&port={self.port}"

    def start(self) -> "PostgreSQL":
        command = [self._pg_ctl, "-D", self.data, "-w", "-l", self.folder / "log", "-o", self._options, "start"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=self._user)
        return self

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, as when the machine's plug is pulled."""
        server = psutil.Process(int((self.data / "postmaster.pid").read_text().splitlines()[0]))
        # Stopped first, so that it makes no new ones meanwhile.
        server.suspend()
        everyone = [*server.children(recursive=True), server]
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everyone, timeout=10)

    def stop(self) -> None:
        subprocess.run(
            [self._pg_ctl, "-D", self.data, "-m", "immediate", "stop"],
            check=False,
            capture_output=True,
            user=self._user,
        )


def fresh_url(kind: str, tmp_path: Path, server: Callable[[], PostgreSQL]) -> str:
    """SQLAlchemy URL of an empty database: "sqlite" a file, "postgresql" a schema of its own on the server."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    base = server().url.replace("postgresql://", "postgresql+psycopg://")
    schema = "s" + os.urandom(6).hex()
    engine = create_engine(base)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine.dispose()
    return f"{base}&options=-csearch_path%3D{schema}"


def remembering(upgrade: Callable[[Connection, PatientKey], None]) -> Callable[[Connection, PatientKey], None]:
    """`migrate._upgrade` whose empty databases get their tables by the statements that the migrations gave the first.

    Alembic takes ten times as long to find them as a database takes for them, and most tests want new tables.
    """
    kept: dict[str, list[tuple[str, Any]]] = {}

    def up(connection: Connection, key: PatientKey) -> None:
        statements = kept.get(connection.dialect.name)
        if inspect(connection).get_table_names():
            upgrade(connection, key)
        elif statements is None:
            kept[connection.dialect.name] = _recorded(connection, lambda: upgrade(connection, key))
        else:
            for statement, parameters in statements:
                connection.exec_driver_sql(statement, parameters)

    return up


def _recorded(connection: Connection, work: Callable[[], None]) -> list[tuple[str, Any]]:
    """Do it; the statements that changed something."""
    found: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if not statement.lstrip().startswith(("SELECT", "PRAGMA")):
            found.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(connection, "before_cursor_execute", note)
    return found
