"""Read the header of one image of each study, so that a person finds it by its patient or accession number.

Only here, by the clock: an image that arrives waits for none of this. What was received before there were labels gets
its own by and by, a few at each tick, the newest first.
"""

import logging
from pathlib import Path

from dicomnode import logs
from dicomnode.files import OutsideRootError
from dicomnode.network.matching import text
from dicomnode.store.catalog.audit import read_head
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label, Unlabelled
from dicomnode.store.results_folder import report_files, results_folder

log = logging.getLogger(__name__)

#: A study whose last image came within this is looked at in each tick: the late image of an old one makes it new.
_RECENT_S = 3600.0
_RECENT_AT_ONCE, _OLDER_AT_ONCE = 200, 20
#: In the order of `Label`.
_TAGS = (
    "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyDate", "StudyDescription", "PatientName",
    "PatientBirthDate", "PatientSex", "StudyTime", "StudyID", "ReferringPhysicianName",
)  # fmt: skip
#: What a header may claim is cut: characters; of a name, which may stand there in three scripts.
_LONGEST, _LONGEST_NAME = 64, 194


class Labelling:
    """Makes labels: `tick` is called by the clock."""

    def __init__(self, catalog: Catalog, results: Path) -> None:
        self._catalog, self._results = catalog, results
        self._older_than: float | None = None  # where looking back has come to; 0: to its end

    def tick(self, now: float) -> int:
        """Label what is new, and some of what is older. Returns how many studies."""
        recent = now - _RECENT_S
        # A clock that was set back: what came then has a later time.
        found = self._catalog.unlabelled(recent, float("inf"), _RECENT_AT_ONCE)
        if self._older_than != 0.0:
            before = recent if self._older_than is None else self._older_than
            older = self._catalog.unlabelled(0.0, before, _OLDER_AT_ONCE)
            self._older_than = older[-1].last_seen if older else 0.0
            found += older
        for study in found:
            self._catalog.note_label(study, self._read(study))
        return len(found)

    def _read(self, study: Unlabelled) -> Label:
        try:
            paths = [Path(study.path)] if study.path else self._reports(study)
            return read_label(paths[0]) if paths else Label()
        except Exception as e:  # noqa: BLE001  (a damaged image provokes anything: the study is found by its UID)
            logs.log_unexpected(log, e, "study %s: no image of it can be read for its label", study.study_uid)
            return Label()

    def _reports(self, study: Unlabelled) -> list[Path]:
        try:
            return report_files(results_folder(self._results, study.study_uid, study.generation))
        except OutsideRootError:
            return []


def read_label(path: Path) -> Label:
    """Return what a file says of its study.

    Raises:
        Exception: whatever a damaged file provokes.
    """
    header = read_head(path, ("SpecificCharacterSet", *_TAGS))
    longest = {"PatientName": _LONGEST_NAME, "ReferringPhysicianName": _LONGEST_NAME}
    return Label(*(text(header, tag).strip(" \0")[: longest.get(tag, _LONGEST)] for tag in _TAGS))
