"""Findings of a patient's other scans, as far as this node has analysed them: what a scan is compared with.

`findings.json` outlives the images (`retention`), so that a follow-up after a year still finds its predecessor.
"""

import logging

from dicomnode.analysis.findings import Findings
from dicomnode.config import Config
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import JobState
from dicomnode.store.results_folder import FINDINGS, results_folder

log = logging.getLogger(__name__)

#: Jobs that have found what they could find. A failed one may only have failed to deliver.
_ENDED: tuple[JobState, ...] = ("analysed", "delivered", "committed", "refused", "failed")


def prior_findings(catalog: Catalog, config: Config, study_uid: str) -> list[Findings]:
    """Return what this node found in the same patient's other studies, later ones included, in the order of their UIDs.

    Of each study the newest result counts; one that was refused, cancelled or is not yet there is left out. Whose a
    study is: `store.catalog.patients`.

    Raises:
        SpoolError: the catalogue failed.
    """
    found = (newest_findings(catalog, config, other) for other in catalog.other_studies(study_uid))
    return [findings for findings in found if findings is not None]


def newest_findings(catalog: Catalog, config: Config, study_uid: str) -> Findings | None:
    """Return the newest generation's findings that have come to their end.

    None where it was refused, or nothing was found.
    """
    study = catalog.study(study_uid)
    for generation in range(0 if study is None else study.generation, 0, -1):
        job = catalog.job(study_uid, generation)
        if job is None or job.state not in _ENDED:
            continue
        try:
            path = results_folder(config.storage.results, study_uid, generation) / FINDINGS
            if not path.is_file():
                continue
        except OSError as error:
            log.error("study %s is left out as a prior: %s", study_uid, error)
            return None
        try:
            findings = Findings.from_json(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            # One study's file must not stop the later studies of its patient.
            log.error(
                "study %s is left out as a prior: its findings cannot be read (%s)", study_uid, type(error).__name__
            )
            return None
        return findings if findings.status == "analysed" else None
    return None
