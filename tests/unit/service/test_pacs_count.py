"""A study waits for images that the PACS lists, and never for the PACS itself."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import find
from dicomnode.network.association import Peer
from dicomnode.service.pacs_count import AGAIN_S, WITHIN_S, Counts, Numbers, expected, listed
from dicomnode.store.records import SeriesIntake, StudyIntake
from tests.helpers.answering import Answering
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


def test_a_list_that_was_cut_short_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Dataset() for _ in range(2)]
    for number, one in enumerate(answers):
        one.SeriesInstanceUID, one.NumberOfSeriesRelatedInstances = f"1.{number}", 7
    for is_complete in (True, False):
        found = find.Found(tuple(find._as_file(one, ImplicitVRLittleEndian) for one in answers), is_complete)
        monkeypatch.setattr(find, "find", lambda *_, found=found, **__: found)
        if is_complete:
            assert listed(Peer("PACS", "PACS", "127.0.0.1", 1, "ME"), "1") == {"1.0": 7, "1.1": 7}
        else:
            with pytest.raises(PeerRejectedError, match="more than 500"):
                listed(Peer("PACS", "PACS", "127.0.0.1", 1, "ME"), "1")


def test_a_pacs_that_falls_silent_has_said_what_it_has_said(
    counts: Counts, pacs: Pacs, caplog: pytest.LogCaptureFixture
) -> None:
    pacs.says = lambda: {"1.1": 79}
    ends_up(counts, STUDY, 1000.0, lacking=True)

    def fail() -> Numbers:
        raise PeerError("pacs is away")

    pacs.says = fail
    ends_up(counts, STUDY, 1001.0 + AGAIN_S, lacking=True)
    assert all(counts.lacks(STUDY, 1001.0 + AGAIN_S) for _ in range(5))
    assert len(caplog.records) == 1  # not at every tick
    assert not counts.lacks(STUDY, 1300.0)
    assert counts.given_up("1") == (79, 10)
    assert not counts.was_silent("1")


def test_an_answer_under_way_when_the_wait_ends_takes_nothing_back(counts: Counts, pacs: Pacs) -> None:
    pacs.says = lambda: {"1.1": 79}
    ends_up(counts, STUDY, 1000.0, lacking=True)
    answers = threading.Event()

    def slowly() -> Numbers:
        answers.wait(60)
        return {}

    pacs.says = slowly
    assert counts.lacks(STUDY, 1001.0 + AGAIN_S)
    assert not counts.lacks(STUDY, 1300.0)
    assert counts.given_up("1") == (79, 10)
    answers.set()


def test_a_study_that_was_quiet_for_longer_than_the_wait_is_asked_about_all_the_same(
    counts: Counts, pacs: Pacs
) -> None:
    pacs.says = lambda: {"1.1": 79}
    ends_up(counts, STUDY, 5000.0, lacking=True)
    assert not counts.lacks(STUDY, 5000.0 + WITHIN_S)
    assert counts.given_up("1") == (79, 10)


def test_what_was_missing_and_has_come_is_not_told(counts: Counts, pacs: Pacs) -> None:
    """The study could not settle when the wait ended (it was held, or was coming)."""
    pacs.says = lambda: {"1.1": 12}
    ends_up(counts, STUDY, 1000.0, lacking=True)
    assert not counts.lacks(STUDY, 1300.0)
    whole = replace(STUDY, last_seen=1301.0, series=(replace(SERIES, instances=12),))
    ends_up(counts, whole, 1302.0, lacking=False)
    assert counts.given_up("1") is None


def test_of_a_pacs_that_has_told_nothing_that_is_known(counts: Counts, pacs: Pacs) -> None:
    def fail() -> Numbers:
        raise PeerError("pacs is away")

    pacs.says = fail
    ends_up(counts, STUDY, 1000.0, lacking=False)
    assert counts.was_silent("1")
    assert not counts.was_silent("1")  # told once: a PACS that is silent for months is not remembered by each study


def test_what_has_left_the_study_by_a_decision_is_not_missing() -> None:
    answer = Dataset()
    answer.SeriesInstanceUID, answer.NumberOfSeriesRelatedInstances = "1.1", "12"
    images = [Dataset() for _ in range(12)]
    for number, image in enumerate(images):
        image.SOPInstanceUID = f"1.1.{number}"
    archive = Answering()
    archive.find = lambda event: iter(
        [(0xFF00, one) for one in ([answer] if event.identifier.QueryRetrieveLevel == "SERIES" else images)]
    )
    try:
        assert expected(archive.destination, STUDY, frozenset()) == {"1.1": 12}
        assert expected(archive.destination, STUDY, {"1.1.3", "1.1.4", "1.7"}) == {"1.1": 10}
        assert len(archive.asked) == 3
    finally:
        archive.close()
