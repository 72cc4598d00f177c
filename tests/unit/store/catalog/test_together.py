"""Several writes of the catalogue in one transaction."""

import pytest

from dicomnode.errors import UsageError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance


@pytest.fixture
def three(catalog: Catalog) -> Catalog:
    for uid in ("1.1", "1.2", "1.3"):
        catalog.record(Instance(f"{uid}.1", "1.9", uid, "1.5", "/x", "0" * 64, 1, 100.0, None, "a" * 32))
        catalog.settle(uid, 110.0, held=None)
    return catalog


def states(catalog: Catalog) -> list[str]:
    return [study.state for study in sorted(catalog.studies(9), key=lambda study: study.study_uid)]


def test_all_of_them_are_seen_at_its_end_and_by_itself_at_once(three: Catalog) -> None:
    with three.together() as one:
        one.set_state("1.1", 1, "failed", now=120.0)
        one.set_state("1.2", 1, "cancelled", now=120.0)
        assert states(one) == ["failed", "cancelled", "queued"]
        assert states(three) == ["queued", "queued", "queued"]
    assert states(three) == ["failed", "cancelled", "queued"]


def test_what_fails_alone_takes_back_no_other_and_what_leaves_takes_back_all(three: Catalog) -> None:
    with three.together() as one:
        one.set_state("1.1", 1, "failed", now=120.0)
        with pytest.raises(UsageError), one._write():
            one.set_state("1.2", 1, "failed", now=120.0)
            raise UsageError("not this one")
        one.set_state("1.3", 1, "failed", now=120.0)
    assert states(three) == ["failed", "queued", "failed"]
    with pytest.raises(KeyboardInterrupt), three.together() as one:
        one.set_state("1.2", 1, "failed", now=130.0)
        raise KeyboardInterrupt
    assert states(three) == ["failed", "queued", "failed"]
    three.set_state("1.2", 1, "failed", now=140.0)  # the turn is given back
    assert states(three) == ["failed", "failed", "failed"]
