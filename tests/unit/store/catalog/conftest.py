"""The catalogue on each database that it runs on: a SQLite file, a PostgreSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.databases import fresh_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLAlchemy URL of an empty database."""
    return fresh_url(request.param, tmp_path, lambda: request.getfixturevalue("postgresql_server"))


@pytest.fixture
def catalog(url: str, tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(url, tmp_path)
    yield opened
    opened.close()
