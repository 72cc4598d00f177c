"""The catalogue on each database that it runs on: a SQLite file, a PostgreSQL server."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.databases import PostgreSQL, fresh_url


@pytest.fixture(scope="session")
def postgresql_server(peer: Callable[[str, str], str]) -> Iterator[PostgreSQL]:
    """One server for all tests; `url` gives each its own schema.

    Not below pytest's temporary folder, which another run of pytest closes to PostgreSQL's user when it starts.
    """
    peer("initdb", "postgresql")
    with tempfile.TemporaryDirectory(prefix="dicomnode-pg-") as folder:
        server = PostgreSQL(Path(folder)).start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLAlchemy URL of an empty database."""
    return fresh_url(request.param, tmp_path, lambda: request.getfixturevalue("postgresql_server"))


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    opened = Catalog.open(url)
    yield opened
    opened.close()
