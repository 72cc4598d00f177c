"""A study whose patient or order was corrected while its images stayed: the last result is encoded anew, not computed.

That holds only where the same objects were analysed by the same method before, and each differs at most in attributes
which no analysis looks at. Where the change since a prior scan, age or sex enters the risk and differs now, the study
is analysed again. What no report would show of a correction leaves the very same result.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydicom import Dataset

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.measures import change, trend
from dicomnode.analysis.pipeline import Method
from dicomnode.analysis.risk.predict import covariates
from dicomnode.analysis.series.headers import read_source, string
from dicomnode.errors import RefusedError
from dicomnode.files import write_whole
from dicomnode.report.attributes import CARRIED
from dicomnode.results.encode import AnalysisCheckpoint
from dicomnode.store.differences import differences
from dicomnode.store.records import Instance
from dicomnode.store.replaced import Replaced
from dicomnode.store.results_folder import INPUTS, results_folder
from dicomnode.store.spool import Spool
from dicomnode.workflows.worker import Work

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle  # torch takes seconds to import

log = logging.getLogger(__name__)

#: Of the order: the reports say which one they answer.
_ORDER: Final = frozenset({"RequestAttributesSequence", "RequestedProcedureCodeSequence", "ReferencedRequestSequence"})
#: A description is matched by the rules for series; the study's identity is its UID.
_LOOKED_AT: Final = frozenset({"StudyDescription", "StudyInstanceUID"})
_IN_REPORTS: Final = (frozenset(CARRIED) - _LOOKED_AT) | _ORDER
# What a PACS or a modality adds beside: neither analysed nor reported.
_ASIDE_KEYWORDS: Final = """
    InstitutionName InstitutionAddress InstitutionalDepartmentName InstitutionCodeSequence StationName
    InstitutionalDepartmentTypeCodeSequence OperatorsName OperatorIdentificationSequence PerformingPhysicianName
    PerformingPhysicianIdentificationSequence DeviceSerialNumber InstanceCreationDate InstanceCreationTime
    InstanceCreatorUID InstanceCoercionDateTime OriginalAttributesSequence RequestingPhysician
    RequestedProcedureDescription RequestedProcedureID StudyStatusID StudyPriorityID StudyComments RetrieveAETitle
    PerformedProcedureStepID PerformedProcedureStepStartDate PerformedProcedureStepStartTime
    PerformedProcedureStepEndDate PerformedProcedureStepEndTime PerformedProcedureStepDescription
    ReferencedPerformedProcedureStepSequence StorageMediaFileSetUID PlacerOrderNumberImagingServiceRequest
    FillerOrderNumberImagingServiceRequest CurrentPatientLocation ConfidentialityCode SpecialNeeds
    PatientInsurancePlanCodeSequence CountryOfResidence RegionOfResidence PatientTelephoneNumbers PatientAddress
    PatientReligiousPreference MilitaryRank BranchOfService PatientBirthName PatientMotherBirthName
    MedicalRecordLocator
"""
_ASIDE: Final = frozenset(_ASIDE_KEYWORDS.split())
_KNOWN: Final = _IN_REPORTS | _ASIDE


def note_inputs(folder: Path, received: Sequence[Instance]) -> None:
    """Note what was analysed, beside its results."""
    write_whole(folder / INPUTS, json.dumps({i.sop_instance_uid: i.sha256 for i in received}))


def reusable(
    work: Work, study_uid: str, generation: int, method: Method, priors: Sequence[Findings]
) -> AnalysisCheckpoint | None:
    """Return the last result as this generation's, for the corrected images; None where it has to be computed.

    Args:
        work: the worker's.
        study_uid: the study's.
        generation: the one that is to be analysed.
        method: with which.
        priors: findings of other scans of the patient, who may be another one now.
    """
    try:
        return _reusable(work, study_uid, generation, method, priors)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RefusedError) as error:
        # Whatever lacks or is damaged of what was kept: the analysis makes it again.
        log.warning("study %s is computed again: its last result cannot be used (%s)", study_uid, type(error).__name__)
        return None


def _reusable(
    work: Work, study_uid: str, generation: int, method: Method, priors: Sequence[Findings]
) -> AnalysisCheckpoint | None:
    results = work.config.storage.results
    folders = [results_folder(results, study_uid, earlier) for earlier in range(generation - 1, 0, -1)]
    folder = next((one for one in folders if (one / INPUTS).exists()), None)
    if folder is None:
        return None
    before: dict[str, str] = json.loads((folder / INPUTS).read_text("utf-8"))
    now = {i.sop_instance_uid: i for i in work.catalog.instances(study_uid)}
    changed = {uid for uid in before if uid in now and now[uid].sha256 != before[uid]}
    if not changed or set(before) != set(now):
        return None
    spool = Spool(work.config.storage.spool)
    differing = _differing(Replaced(spool), before, now, changed)
    if differing is None or not all(names <= _KNOWN for names in differing.values()):
        return None
    last = AnalysisCheckpoint.restore(folder)
    if last.findings.status != "analysed" or last.findings.algorithm_digest != method.digest:
        return None
    uid_at = {spool.place(study_uid, i.series_uid, uid, before[uid]): uid for uid, i in now.items()}
    sources = [uid_at[path] for path in last.sources]
    findings = replace(last.findings, revision="")
    if any(differing.get(uid, frozenset()) & _IN_REPORTS for uid in sources):
        findings = _corrected(last.findings, sources, now, priors)
        old = _header(Replaced(spool).find(before[sources[0]]) or Path(now[sources[0]].path))
        if not _same_risk(method.bundle, last.findings, findings, old, _header(Path(now[sources[0]].path))):
            return None
    log.info("study %s generation %d: corrected, encoded from the findings of %s", study_uid, generation, folder.name)
    return replace(last, findings=findings, sources=tuple(Path(now[uid].path) for uid in sources))


def _differing(
    area: Replaced, before: Mapping[str, str], now: Mapping[str, Instance], changed: set[str]
) -> dict[str, frozenset[str]] | None:
    """Return which attributes of which object differ; None where a former version is no longer kept."""
    found = {}
    for uid in changed:
        old = area.find(before[uid])
        if old is None:
            return None
        found[uid] = frozenset(d.attribute for d in differences(old, Path(now[uid].path)))
    return found


def _corrected(
    last: Findings, sources: Sequence[str], now: Mapping[str, Instance], priors: Sequence[Findings]
) -> Findings:
    """Return the findings of the corrected images: whose they are decides what they are compared with."""
    assert last.series is not None
    header = _header(Path(now[sources[0]].path))
    dated = replace(last.series, study_date=string(header, "StudyDate"), study_time=string(header, "StudyTime"))
    # As `selection.input_digest` has it; the catalogue's digests leave out the file meta group too.
    pairs = sorted(f"{uid} {now[uid].sha256}\n" for uid in sources)
    digest = hashlib.sha256("".join(pairs).encode("ascii")).hexdigest()
    found = replace(last, series=dated, input_digest=digest, revision="", change=None, trend=())
    found = replace(found, change=change.compare(found, priors))
    return replace(found, trend=trend.trend(found, priors))


def _same_risk(bundle: "Bundle | None", last: Findings, found: Findings, old: Dataset, new: Dataset) -> bool:
    """Whether the bundle would be asked the same question."""
    if bundle is None:
        return True
    taken = bundle.manifest.features
    looks_back = any(arm.kind == "network" and arm.prior for arm in bundle.manifest.arms)
    if last.change != found.change and (looks_back or any(name.startswith("change.") for name in taken)):
        return False
    asks = bundle.manifest.covariates or any(name.startswith("covariates.") for name in taken)
    return not asks or covariates(last, old) == covariates(found, new)


def _header(path: Path) -> Dataset:
    return read_source(path)
