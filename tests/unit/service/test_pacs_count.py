"""A study waits for images that the PACS lists, and never for the PACS itself."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from dicomnode.errors import PeerError
from dicomnode.service.pacs_count import AGAIN_S, Counts, Numbers
from dicomnode.store.records import SeriesIntake, StudyIntake
from tests.helpers.waiting import until

SERIES = SeriesIntake("1.1", "CT", frozenset(), 10, frozenset(), ())
STUDY = StudyIntake("1", 1000.0, (), (SERIES,))


class Pacs:
    """Answers what `says` gives."""

    def __init__(self) -> None:
        self.says: Callable[[], Numbers] = dict
        self.asked = 0

    def __call__(self, _study: StudyIntake) -> Numbers:
        self.asked += 1
        return self.says()


@pytest.fixture
def pacs() -> Pacs:
    return Pacs()


@pytest.fixture
def counts(pacs: Pacs) -> Iterator[Counts]:
    made = Counts(pacs, longest_s=300.0)
    yield made
    made.close()


def ends_up(counts: Counts, study: StudyIntake, now: float, *, lacking: bool) -> None:
    """The answer once the PACS has answered."""
    counts.lacks(study, now)
    if lacking:
        until("answered", counts._waiting["1"].answer.done, 10)
        assert counts.lacks(study, now)
    else:
        until("settled", lambda: not counts.lacks(study, now), 10)


def test_more_images_are_waited_for_and_asked_about_again(pacs: Pacs, counts: Counts) -> None:
    pacs.says = lambda: {"1.1": 12}
    ends_up(counts, STUDY, 1001.0, lacking=True)
    assert pacs.asked == 1
    whole = replace(STUDY, series=(replace(SERIES, instances=12),))
    assert not counts.lacks(whole, 1002.0)
    ends_up(counts, STUDY, 1003.0 + AGAIN_S, lacking=True)
    assert pacs.asked == 2


@pytest.mark.parametrize("numbers", [{"1.1": 10}, {"1.1": 3}, {"1.9": 500}, {}])
def test_nothing_to_wait_for(pacs: Pacs, counts: Counts, numbers: dict[str, int]) -> None:
    pacs.says = lambda: numbers
    ends_up(counts, STUDY, 1001.0, lacking=False)


def test_a_pacs_that_fails_stops_nothing(pacs: Pacs, counts: Counts, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Numbers:
        raise PeerError("pacs is away")

    pacs.says = fail
    ends_up(counts, STUDY, 1001.0, lacking=False)
    assert "could not count" in caplog.text


def test_the_wait_has_an_end(pacs: Pacs, counts: Counts) -> None:
    pacs.says = lambda: {"1.1": 12}
    ends_up(counts, STUDY, 1001.0, lacking=True)
    assert not counts.lacks(STUDY, 1300.0)


def test_a_study_that_waits_no_longer_tells_how_many_are_missing(counts: Counts, pacs: Pacs) -> None:
    pacs.says = lambda: {"1.1": 79, "1.9": 5}
    ends_up(counts, STUDY, 1000.0, lacking=True)
    assert counts.given_up("1") is None
    assert not counts.lacks(STUDY, 1300.0)
    assert counts.given_up("1") == (79, 10)
    assert counts.given_up("1") is None
