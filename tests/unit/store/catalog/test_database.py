"""How an open database is closed."""

import sqlite3
from typing import Any

from dicomnode.store.catalog.catalog import Catalog


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


def is_open(connection: Any) -> bool:
    if not isinstance(connection, sqlite3.Connection):
        return not connection.closed
    try:
        connection.total_changes  # noqa: B018  (raises where it is closed)
    except sqlite3.ProgrammingError:
        return False
    return True
