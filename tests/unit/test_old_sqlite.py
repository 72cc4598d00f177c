"""Which SQLite a process works with: Python's, or the one that is brought along."""

import subprocess
import sys
from pathlib import Path

import pytest

_OLD = """
import sqlite3
sqlite3.sqlite_version_info, sqlite3.sqlite_version = (3, 34, 1), "3.34.1"
import dicomnode
from dicomnode.store.catalog.catalog import Catalog
Catalog.open("sqlite:///catalog.sqlite").close()
import sqlite3 as used
print(used.__name__, used.sqlite_version_info >= (3, 42))
"""


def told(program: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_pythons_own_is_used_where_it_is_new_enough(tmp_path: Path) -> None:
    assert told("import dicomnode, sqlite3; print(sqlite3.__name__)", tmp_path) == "sqlite3"


def test_the_one_that_is_brought_along_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    pytest.importorskip("pysqlite3", reason="there is a wheel for x86_64 alone")
    assert told(_OLD, tmp_path) == "pysqlite3 True"


def test_an_old_one_without_another_is_refused_with_a_way_on(tmp_path: Path) -> None:
    hidden = "import sys\nsys.modules['pysqlite3'] = None\n" + _OLD
    message = told(hidden, tmp_path)
    assert message.startswith("dicomnode.errors.SpoolError: SQLite 3.34.1 is too old: with Python 3.")
    assert "pysqlite3-binary" in message
    assert "storage.database_url" in message
