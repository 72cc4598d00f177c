"""Rejection notes: Key Object Selection documents by which another system takes objects back (IHE RAD TF-2, IOCM).

A note is stored like any object. When its study settles, the objects that it names leave the study, whichever came
first. The titles are those of PS3.16 CID 7010.
"""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from pydicom import Dataset, dcmread

from dicomnode import logs
from dicomnode.reception.corrections import put_away
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Correction, Instance, RejectionCode
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

TITLES: Final[tuple[RejectionCode, ...]] = tuple(code for code in get_args(RejectionCode) if code)
_LARGEST_NOTE = 16 << 20  # bytes
_TAGS = ["ConceptNameCodeSequence", "CurrentRequestedProcedureEvidenceSequence"]


@dataclass(frozen=True)
class RejectionNote:
    """What a note rejects: SOP Instance UIDs, as far as they belong to the note's own study."""

    code: RejectionCode
    objects: frozenset[str]


def read_note(path: Path, study_uid: str) -> RejectionNote | None:
    """Return the note in a file; None where it is none, or cannot be read."""
    try:
        if path.stat().st_size > _LARGEST_NOTE:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = dcmread(path, specific_tags=_TAGS)
            code = _title(document)
            return None if not code else RejectionNote(code, frozenset(_objects(document, study_uid)))
    except Exception:  # noqa: BLE001  (what a peer has sent provokes anything; what is no note rejects nothing)
        return None


def apply_notes(spool: Spool, catalog: Catalog, study_uid: str, now: float) -> int:
    """Take out of a study what its rejection notes name, at the time `now`. Returns how many objects.

    A version that came after a note had taken an earlier one out is another: it stays. Where the images were removed
    for want of room, but results made from them are out, it is noted all the same: these are to be rejected.

    Raises:
        SpoolError: the catalogue or the spool failed.
    """
    there = {i.sop_instance_uid: i for i in catalog.instances(study_uid)}
    notes = [i for i in there.values() if i.is_note]
    count = 0
    for note in notes:
        read = read_note(Path(note.path), study_uid)
        if read is None:
            continue
        who = f"rejection note {logs.uid(note.sop_instance_uid)}"
        if len(notes) == len(there):
            catalog.reject_absent(study_uid, read.objects, who, read.code, now=now)
            continue
        before = [c for c in catalog.corrections(study_uid) if c.who == who]
        uids = [uid for uid in read.objects if uid in there and uid != note.sop_instance_uid]
        wanted = [uid for uid in uids if not _is_another(there[uid], before)]
        if not wanted:
            continue
        gone = catalog.take_out(study_uid, wanted, "noted", who, read.code, now=now)
        put_away(spool, catalog, gone, now)
        count += len(gone)
        if gone:  # else another node on this database was quicker
            text = "study %s: %s taken out by a %s, title %s"
            log.warning(text, study_uid, plural(len(gone), "object"), who, read.code)
    return count


def _is_another(instance: Instance, before: list[Correction]) -> bool:
    earlier = [c.sha256 for c in before if c.sop_instance_uid == instance.sop_instance_uid and c.sha256]
    return bool(earlier) and instance.sha256 not in earlier


def _title(document: Dataset) -> RejectionCode:
    for item in document.get("ConceptNameCodeSequence") or ():
        for code in TITLES:
            if (str(item.get("CodeValue")), str(item.get("CodingSchemeDesignator"))) == (code, "DCM"):
                return code
    return ""


def _objects(document: Dataset, study_uid: str) -> Iterator[str]:
    for study in document.get("CurrentRequestedProcedureEvidenceSequence") or ():
        if str(study.get("StudyInstanceUID")) != study_uid:
            continue
        for series in study.get("ReferencedSeriesSequence") or ():
            for one in series.get("ReferencedSOPSequence") or ():
                yield str(one.get("ReferencedSOPInstanceUID"))
