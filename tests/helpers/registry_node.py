"""A catalogue with studies and the registry beside it, without a node that runs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.analysis.findings import Findings, Flag
from dicomnode.analysis.phantom.phantom import chest
from dicomnode.analysis.pipeline import Analysis
from dicomnode.config import RegistryTable
from dicomnode.registry import record_scan
from dicomnode.registry.key import load_pseudonyms
from dicomnode.registry.outcomes import Imported, import_outcomes
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.identity import patient_hash
from dicomnode.store.records import Instance
from tests.helpers import report_cases

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle

NOW = 1_800_000_000.0


@dataclass
class Node:
    """A catalogue with studies, and the registry beside it."""

    folder: Path
    catalog: Catalog

    @property
    def table(self) -> RegistryTable:
        return RegistryTable(record=True, volumes=True, folder=self.folder / "registry")

    def study(self, uid: str, patient_id: bytes, issuer: bytes = b"") -> None:
        image = Dataset()
        image.PatientID, image.IssuerOfPatientID = patient_id.decode(), issuer.decode()
        image.preamble, image.file_meta = bytes(128), FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = self.folder / f"{uid}.dcm"
        image.save_as(path, enforce_file_format=False)
        hashed = self.catalog.patient_key.keyed(patient_hash(patient_id, issuer))
        self.catalog.record(Instance(f"{uid}.1.1", "1.2", uid, f"{uid}.1", str(path), "s", 9, NOW, None, hashed))

    def keep(self, analysis: Analysis, shadow: object = None) -> bool:
        return record_scan.keep(self.table, self.catalog, analysis, (), cast("Bundle | None", shadow), now=NOW)

    def outcomes(self, text: str) -> Imported:
        path = self.folder / "outcomes.csv"
        path.write_text(text)
        return import_outcomes(self.catalog, path, load_pseudonyms(self.table.folder), NOW)


def header(**changes: str) -> Dataset:
    made = Dataset()
    made.PatientID, made.PatientSex, made.PatientAge, made.PatientBirthDate = "PAT-1", "F", "066Y", "19600101"
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def findings(study_uid: str, studied: str, *flags: Flag) -> Findings:
    made = report_cases.analysed(study_uid=study_uid, predicted=report_cases.risk())
    assert made.series is not None
    return replace(made, flags=flags, series=replace(made.series, study_date=studied, study_time="101112"))


def analysis(study_uid: str, studied: str, *flags: Flag) -> Analysis:
    phantom = chest(3, shape=(24, 40, 48), spacing_mm=(12.0, 7.0, 7.0))
    return Analysis(findings(study_uid, studied, *flags), (header(),), phantom.volume, phantom.labels)
