"""What several tests of faults begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.station import Pacs, running


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    """A PACS that listens, and keeps what it gets."""
    made = Pacs(tmp_path / "pacs")
    made.start()
    with running(made):
        yield made
