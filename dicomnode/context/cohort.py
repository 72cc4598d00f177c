"""Which study of the PACS a row of a cohort's list means: exactly one, or none and the reason. Nothing is guessed.

1. The PACS is asked by all that the row gives.
2. An answer counts only if it says the same as the row: Patient ID (and issuer, where both have one), accession number,
   date, Study Instance UID. A PACS may match less strictly than it was asked, or answer with somebody else's study.
3. Of those that remain, studies without a series of `priors.modalities` are left out.
4. One is left: it is meant. Several are left: a person has to decide, by the column study_uid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset

from dicomnode.analysis.series.headers import plain
from dicomnode.config import PriorsTable
from dicomnode.context.priors import matches
from dicomnode.logs import is_uid
from dicomnode.network import find, pacs_queries
from dicomnode.network.find import Found
from dicomnode.words.numerals import plural

#: More answers than these are asked for by no row that names a study.
_MOST_STUDIES, _MOST_SERIES = 50, 500
#: More studies that fit than this are not looked into.
_MOST_CANDIDATES = 10
NoStudy = Literal["not-found", "ambiguous", "wrong-patient", "no-series"]


@dataclass(frozen=True)
class AskedStudy:
    """What a row says of a study, "" for nothing; `study_date` as YYYYMMDD."""

    patient_id: str
    issuer: str
    accession_number: str
    study_date: str
    study_uid: str


@dataclass(frozen=True)
class CohortStudy:
    """The study that a row means.

    Attributes:
        patient_id: as the PACS has it.
        series_uids: those of the wanted modalities.
        images: so many has the PACS of these series; None where it does not say.
    """

    study_uid: str
    patient_id: str
    series_uids: tuple[str, ...]
    images: int | None


@dataclass(frozen=True)
class LookedUp:
    """`found`: how many studies fit the row; `study`, or why there is none."""

    found: int
    study: CohortStudy | None = None
    state: NoStudy = "not-found"
    reason: str = ""


def look_up(table: PriorsTable, asked: AskedStudy) -> LookedUp:
    """Ask the PACS which study a row means.

    Raises:
        PeerError, PeerRejectedError: the PACS did not answer, or refused.
    """
    identifier = pacs_queries.of_row(
        patient_id=asked.patient_id,
        accession_number=asked.accession_number,
        study_date=asked.study_date,
        study_uid=asked.study_uid,
    )
    found = _find(table, identifier, _MOST_STUDIES)
    fitting, foreign = [], 0
    for answer in map(find.read, found.answers):
        if not is_uid(_text(answer, "StudyInstanceUID")):
            continue
        if not _is_patient(answer, asked):
            foreign += 1
        elif _fits(answer, asked):
            fitting.append(answer)
    fitting = list({_text(one, "StudyInstanceUID"): one for one in fitting}.values())
    if len(fitting) > _MOST_CANDIDATES:
        return LookedUp(len(fitting), None, "ambiguous", f"{len(fitting)} studies fit: say which, by study_uid")
    if not found.is_complete and not (asked.study_uid and fitting):  # what the row means may be among the others
        cure = "it does not search by study_uid" if asked.study_uid else "name it by study_uid"
        more = f"the PACS lists more than {_MOST_STUDIES} studies for the row: {cure}"
        return LookedUp(len(fitting), None, "ambiguous", more)
    if not fitting and foreign:
        named = plural(foreign, "answer names", "answers name")
        return LookedUp(0, None, "wrong-patient", f"{named} another patient than the row, and none this one: refused")
    if not fitting:
        unlike = (
            f"; {plural(len(found.answers), 'answer says', 'answers say')} something else than the row"
            if found.answers
            else ""
        )
        return LookedUp(0, None, "not-found", f"the PACS lists no such study{unlike}")
    return _one_of(table, fitting)


def _one_of(table: PriorsTable, fitting: Sequence[Dataset]) -> LookedUp:
    with_series = []
    for answer in fitting:
        study_uid = _text(answer, "StudyInstanceUID")
        listed = _find(table, pacs_queries.series(study_uid, images=True), _MOST_SERIES)
        if not listed.is_complete:
            more = f"the PACS lists more than {_MOST_SERIES} series of study {study_uid}"
            return LookedUp(len(fitting), None, "ambiguous", f"{more}: name another by study_uid, or send it manually")
        one = _with_series(table, answer, listed)
        if one is not None:
            with_series.append(one)
    wanted = ", ".join(table.modalities)
    if not with_series:
        return LookedUp(len(fitting), None, "no-series", f"no series of {wanted} (priors.modalities)")
    if len(with_series) > 1:
        uids = ", ".join(one.study_uid for one in with_series)
        return LookedUp(len(fitting), None, "ambiguous", f"several studies with {wanted} fit, say which: {uids}")
    return LookedUp(len(fitting), with_series[0])


def _with_series(table: PriorsTable, answer: Dataset, listed: Found) -> CohortStudy | None:
    chosen: dict[str, int | None] = {}
    for one in map(find.read, listed.answers):
        uid, words = _text(one, "SeriesInstanceUID"), plain(_text(one, "SeriesDescription"))
        refused = any(matches(pattern, words) for pattern in table.description_exclude)
        if _text(one, "Modality") in table.modalities and is_uid(uid) and not refused:
            count = _text(one, "NumberOfSeriesRelatedInstances")
            chosen[uid] = int(count) if count.isascii() and count.isdigit() else None
    if not chosen:
        return None
    counts = [count for count in chosen.values() if count is not None]
    images = sum(counts) if len(counts) == len(chosen) else None
    return CohortStudy(_text(answer, "StudyInstanceUID"), _text(answer, "PatientID"), tuple(chosen), images)


def _is_patient(answer: Dataset, asked: AskedStudy) -> bool:
    """Whether an answer is of the patient of the row: a row without a Patient ID takes whose the study is."""
    if asked.patient_id and _text(answer, "PatientID") != asked.patient_id:
        return False
    issuers = {asked.issuer, _text(answer, "IssuerOfPatientID")} - {""}
    return len(issuers) <= 1 or not asked.issuer


def _fits(answer: Dataset, asked: AskedStudy) -> bool:
    said = {
        "AccessionNumber": asked.accession_number,
        "StudyDate": asked.study_date,
        "StudyInstanceUID": asked.study_uid,
    }
    return all(
        not value or _text(answer, keyword).replace(".", "" if keyword == "StudyDate" else ".") == value
        for keyword, value in said.items()
    )


def _text(answer: Dataset, keyword: str) -> str:
    try:
        return str(answer.get(keyword) or "").strip(" \0")
    except Exception:  # noqa: BLE001  (a value that cannot be decoded says nothing)
        return ""


def _find(table: PriorsTable, question: Dataset, most: int) -> Found:
    return find.find(table.peer, find.STUDY_ROOT_FIND, question, within_s=table.timeout_s, most=most)
