"""What the clock does about corrections: rejection notes, studies that were compared with a corrected one, the archive.

A study whose report names a prior scan that has turned out to be somebody else's, was taken out, or has another result
now, is analysed again: its comparison would stay wrong in the PACS. A correction that changed no result costs nothing.
"""

import logging

from dicomnode.config import Config
from dicomnode.context.prior_findings import newest_findings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Correction

log = logging.getLogger(__name__)

_BUSY = ("receiving", "queued", "running")


def follow(config: Config, catalog: Catalog) -> list[str]:
    """Let the studies settle anew whose newest results were compared with a corrected study, once that has ended.

    Returns their UIDs.
    """
    reopened: list[str] = []
    by_study: dict[str, list[Correction]] = {}
    for one in catalog.unfollowed():
        by_study.setdefault(one.study_uid, []).append(one)
    for study_uid, found in by_study.items():
        study = catalog.study(study_uid)
        if study is not None and study.state in _BUSY:
            continue
        for whose in sorted({c.patient_hash for c in found} - {""}):
            for other in catalog.studies_of(whose):
                if other != study_uid and _is_outdated(config, catalog, other, study_uid):
                    reopened += _reopened(catalog, other)
        catalog.followed(study_uid, max(c.at for c in found))
    return reopened


def _reopened(catalog: Catalog, other: str) -> list[str]:
    if catalog.reopen(other):
        log.info("study %s will be analysed again: a scan that it was compared with was corrected", other)
        return [other]
    study = catalog.study(other)
    if study is not None and study.state in _BUSY:
        return []  # its next generation is on its way
    log.warning("study %s was compared with a scan that was corrected since: retry it, or send it again", other)
    return []


def _is_outdated(config: Config, catalog: Catalog, other: str, study_uid: str) -> bool:
    """Whether the newest results of `other` were compared with what this study is no more."""
    findings = newest_findings(catalog, config, other)
    if findings is None:
        return False
    now = newest_findings(catalog, config, study_uid)
    stays = now is not None and study_uid in catalog.other_studies(other)
    named = {point.version for point in findings.trend if point.study_uid == study_uid}
    if now is not None and stays and named:
        return named != {now.version}
    change = findings.change
    is_prior = change is not None and change.prior_study_uid == study_uid
    return bool(named) or is_prior
