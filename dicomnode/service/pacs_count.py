"""What a PACS that has the same images says of their number (C-FIND, PS3.4 C.4.1), asked before a study settles.

It can only make a study wait, and for `longest_s` at most: a PACS that is down, slow, or still receiving itself holds
up nothing for good.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicomnode.errors import DicomnodeError, PeerRejectedError
from dicomnode.network import find
from dicomnode.network.association import Peer
from dicomnode.store.records import StudyIntake

log = logging.getLogger(__name__)

#: A study that lacks images is asked about again after so long, and an answer may take so long.
AGAIN_S, WITHIN_S = 10.0, 10.0
_MOST_SERIES = 500

#: Number of images by Series Instance UID.
Numbers = Mapping[str, int]


def listed(peer: Peer, study_uid: str) -> Numbers:
    """Return the number of images of each series of a study.

    It is Number of Series Related Instances (0020,1209), where the PACS gives it.

    Raises:
        PeerError, PeerRejectedError: the PACS did not answer, refused, or lists more series than are counted: images
            of the others may be missing.
    """
    question = Dataset()
    question.QueryRetrieveLevel = "SERIES"
    question.StudyInstanceUID = study_uid
    question.SeriesInstanceUID = None
    question.NumberOfSeriesRelatedInstances = None
    found = find.find(peer, find.STUDY_ROOT_FIND, question, within_s=WITHIN_S, most=_MOST_SERIES)
    if not found.is_complete:
        raise PeerRejectedError(f"{peer} lists more than {_MOST_SERIES} series of the study")
    numbers: dict[str, int] = {}
    for answer in found.answers:
        series = find.read(answer)
        with suppress(ValueError, TypeError):  # not every PACS counts
            numbers[str(series.get("SeriesInstanceUID"))] = int(str(series.get("NumberOfSeriesRelatedInstances")))
    return numbers


@dataclass(frozen=True)
class _Asked:
    at: float
    answer: "Future[Numbers]"


class Counts:
    """Asks in threads of its own, so that the clock's other studies do not wait for a slow PACS."""

    def __init__(self, ask: Callable[[str], Numbers], longest_s: float) -> None:
        self._ask, self._longest_s = ask, longest_s
        self._asked: dict[str, _Asked] = {}
        self._given_up: dict[str, tuple[int, int]] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="count")

    def lacks(self, study: StudyIntake, now: float) -> bool:
        """Whether the study should wait: the PACS is being asked, or lists more images in one of its series.

        Series of which nothing has come do not count: they were perhaps not meant for this node.
        """
        if now >= study.last_seen + self._longest_s:
            last = self._asked.pop(study.study_uid, None)
            if last is not None and last.answer.done() and (missing := self._says_more(last, study)) is not None:
                self._given_up[study.study_uid] = missing
            return False
        asked = self._asked.get(study.study_uid)
        if asked is None or (asked.answer.done() and now >= asked.at + AGAIN_S):
            self._asked[study.study_uid] = _Asked(now, self._threads.submit(self._ask, study.study_uid))
            return True
        if not asked.answer.done():
            return True
        if self._says_more(asked, study) is not None:
            return True
        del self._asked[study.study_uid]
        return False

    def given_up(self, study_uid: str) -> tuple[int, int] | None:
        """Return how many images the PACS lists and how many have come, of a study that waits for them no longer."""
        return self._given_up.pop(study_uid, None)

    @staticmethod
    def _says_more(asked: _Asked, study: StudyIntake) -> tuple[int, int] | None:
        """Return the numbers listed and here of the series that lack images; None where none does."""
        try:
            numbers = asked.answer.result()
        except DicomnodeError as error:
            log.warning("could not count the images of study %s at the PACS: %s", study.study_uid, error)
            return None
        short = [s for s in study.series if numbers.get(s.series_uid, 0) > s.instances]
        if not short:
            return None
        return sum(numbers[s.series_uid] for s in short), sum(s.instances for s in short)

    def close(self) -> None:
        """Ask no more; an answer under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
