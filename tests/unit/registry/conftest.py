"""A registry for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.registry_node import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.sqlite")
    yield Node(tmp_path, catalog)
    catalog.close()
