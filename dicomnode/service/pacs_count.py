"""What a PACS that has the same images says of their number (C-FIND, PS3.4 C.4.1), asked before a study settles.

It can only make a study wait, and for `longest_s` at most: a PACS that is down, slow, or still receiving itself holds
up nothing for good.
"""

import logging
from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicomnode import logs
from dicomnode.errors import DicomnodeError, PeerRejectedError
from dicomnode.network import find
from dicomnode.network.association import Peer
from dicomnode.store.records import StudyIntake

log = logging.getLogger(__name__)

#: A study that lacks images is asked about again after so long, and an answer may take so long.
AGAIN_S, WITHIN_S = 10.0, 10.0
_MOST_SERIES = 500
_MOST_IMAGES = 10_000
#: A study that nobody has looked at for so long after its wait is somebody else's.
_FORGET_S = 600.0

#: Number of images by Series Instance UID.
Numbers = Mapping[str, int]


def listed(peer: Peer, study_uid: str) -> Numbers:
    """Return the number of images of each series of a study.

    It is Number of Series Related Instances (0020,1209), where the PACS gives it.

    Raises:
        PeerError, PeerRejectedError: the PACS did not answer, refused, or lists more than is counted: images of
            the others may be missing.
    """
    question = Dataset()
    question.QueryRetrieveLevel = "SERIES"
    question.StudyInstanceUID = study_uid
    question.SeriesInstanceUID = None
    question.NumberOfSeriesRelatedInstances = None
    numbers: dict[str, int] = {}
    for series in _ask(peer, question, _MOST_SERIES):
        with suppress(ValueError, TypeError):  # not every PACS counts
            numbers[str(series.get("SeriesInstanceUID"))] = int(str(series.get("NumberOfSeriesRelatedInstances")))
    return numbers


def expected(peer: Peer, study: StudyIntake, gone: Set[str]) -> Numbers:
    """Return `listed` without the objects in `gone`, which have left the study here by a decision.

    A PACS may list these for good. Only series of which it lists more than has come are asked about image by image.

    Raises:
        PeerError, PeerRejectedError: as `listed`.
    """
    numbers = dict(listed(peer, study.study_uid))
    for series in study.series if gone else ():
        if numbers.get(series.series_uid, 0) > series.instances:
            question = Dataset()
            question.QueryRetrieveLevel = "IMAGE"
            question.StudyInstanceUID = study.study_uid
            question.SeriesInstanceUID = series.series_uid
            question.SOPInstanceUID = None
            uids = {str(image.get("SOPInstanceUID")) for image in _ask(peer, question, _MOST_IMAGES)}
            numbers[series.series_uid] -= len(uids & gone)
    return numbers


def _ask(peer: Peer, question: Dataset, most: int) -> list[Dataset]:
    found = find.find(peer, find.STUDY_ROOT_FIND, question, within_s=WITHIN_S, most=most)
    if not found.is_complete:
        raise PeerRejectedError(f"{peer} lists more than {most} series or images, which is more than are counted")
    return [find.read(answer) for answer in found.answers]


@dataclass
class _Waiting:
    """A study that is being asked about: since when, when last, and the numbers that the PACS gave last."""

    since: float
    asked_at: float
    answer: "Future[Numbers]"
    is_read: bool = False
    numbers: Numbers | None = None


class Counts:
    """Asks in threads of its own, so that the clock's other studies do not wait for a slow PACS."""

    def __init__(self, ask: Callable[[StudyIntake], Numbers], longest_s: float) -> None:
        self._ask, self._longest_s = ask, longest_s
        self._waiting: dict[str, _Waiting] = {}
        self._given_up: dict[str, tuple[int, int]] = {}
        self._silent: set[str] = set()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="count")

    def lacks(self, study: StudyIntake, now: float) -> bool:
        """Whether the study should wait: the PACS is being asked, or lists more images in one of its series.

        Series of which nothing has come do not count: they were perhaps not meant for this node. A study that was quiet
        for longer than `longest_s` before anybody asked is asked about all the same. What the PACS has listed stays
        true while it does not answer any more.
        """
        uid = study.study_uid
        self._given_up.pop(uid, None)  # what an earlier look found may have come since
        self._silent.discard(uid)
        one = self._waiting.get(uid)
        if one is None:
            self._forget_others(now)
            self._waiting[uid] = _Waiting(now, now, self._threads.submit(self._ask, study))
            return True
        one.since = min(one.since, now)  # a clock that was set back makes nothing wait longer
        has_ended = now >= max(study.last_seen + self._longest_s, one.since + WITHIN_S)
        if not one.answer.done():
            if not has_ended:
                return True
        elif not one.is_read:  # a failure is logged once, not at every tick
            one.is_read, one.numbers = True, _read(one.answer, uid) or one.numbers
        missing = None if one.numbers is None else _missing(one.numbers, study)
        if missing is not None and not has_ended:
            if one.answer.done() and not 0 <= now - one.asked_at < AGAIN_S:
                one.asked_at, one.is_read, one.answer = now, False, self._threads.submit(self._ask, study)
            return True
        self._waiting.pop(uid).answer.cancel()
        if missing is not None:
            self._given_up[uid] = missing
        if one.numbers is None:
            self._silent.add(uid)
        return False

    def given_up(self, study_uid: str) -> tuple[int, int] | None:
        """Return how many images the PACS lists and how many have come, of a study that waits for them no longer."""
        return self._given_up.pop(study_uid, None)

    def was_silent(self, study_uid: str) -> bool:
        """Whether the PACS has told nothing of a study that is waited for no longer; asked once."""
        was = study_uid in self._silent
        self._silent.discard(study_uid)
        return was

    def _forget_others(self, now: float) -> None:
        """Forget those that nobody has asked about for long: another node has settled them, or they were removed."""
        before = now - self._longest_s - _FORGET_S
        for uid in [uid for uid, one in self._waiting.items() if one.asked_at < before]:
            self._waiting.pop(uid).answer.cancel()

    def close(self) -> None:
        """Ask no more; an answer under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _read(answer: "Future[Numbers]", study_uid: str) -> Numbers | None:
    try:
        return answer.result()
    except DicomnodeError as error:
        log.warning("could not count the images of study %s at the PACS: %s", study_uid, error)
    except Exception as error:  # noqa: BLE001  (whatever an answer provokes: it holds no study up)
        logs.log_unexpected(log, error, "the images of study %s could not be counted at the PACS", study_uid)
    return None


def _missing(numbers: Numbers, study: StudyIntake) -> tuple[int, int] | None:
    """Return the numbers listed and here of the series that lack images; None where none does."""
    short = [s for s in study.series if numbers.get(s.series_uid, 0) > s.instances]
    if not short:
        return None
    return sum(numbers[s.series_uid] for s in short), sum(s.instances for s in short)
