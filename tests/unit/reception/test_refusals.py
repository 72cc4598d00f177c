"""Refused associations are counted whatever happens to the database, and whatever callers make up."""

from collections.abc import Sequence

import pytest

from dicomnode.errors import DatabaseError
from dicomnode.reception.refusals import RefusalCounts
from dicomnode.store.catalog.alerts import RefusalCount


class Kept:
    """A catalogue that may be away."""

    def __init__(self) -> None:
        self.rows: list[RefusalCount] = []
        self.away = False

    def __call__(self, counted: Sequence[RefusalCount], _now: float) -> None:
        if self.away:
            raise DatabaseError("away")
        self.rows += counted


def test_they_are_handed_over_once_by_reason() -> None:
    counts, kept = RefusalCounts(), Kept()
    counts.count("CT1", "192.0.2.1", "unknown")
    counts.count("CT2", "192.0.2.2", "unknown")
    counts.count("", "192.0.2.3", "TLS: no certificate")
    counts.flush(kept)
    assert kept.rows == [
        RefusalCount("unknown", "CT2 at 192.0.2.2", 2),
        RefusalCount("TLS: no certificate", "192.0.2.3", 1),
    ]
    counts.flush(kept)
    assert len(kept.rows) == 2


def test_what_the_database_does_not_take_is_kept() -> None:
    counts, kept = RefusalCounts(), Kept()
    kept.away = True
    counts.count("CT1", "192.0.2.1", "unknown")
    with pytest.raises(DatabaseError):
        counts.flush(kept)
    counts.count("CT1", "192.0.2.1", "unknown")
    kept.away = False
    counts.flush(kept)
    assert kept.rows == [RefusalCount("unknown", "CT1 at 192.0.2.1", 2)]


def test_made_up_reasons_share_a_row() -> None:
    counts, kept = RefusalCounts(), Kept()
    for number in range(1000):
        counts.count("X", "192.0.2.1", f"TLS: {number}")
    counts.flush(kept)
    assert len(kept.rows) == 31
    assert sum(row.count for row in kept.rows) == 1000
