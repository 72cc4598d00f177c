"""Studies that come again, corrected: copies of files with some attributes changed, screenshots, rejection notes."""

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from dicomnode.report.uids import derive


def corrected(files: Sequence[Path], folder: Path, **attributes: str) -> list[Path]:
    """Copies under the same UIDs with these attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in files:
        dataset = pydicom.dcmread(path)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / path.name)
        written.append(folder / path.name)
    return written


def screenshot(like: Path, path: Path, patient_id: str, name: str = "screenshot") -> Path:
    """A secondary capture in the study of `like`."""
    first = pydicom.dcmread(like)
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, derive("test", name, first.StudyInstanceUID)
    made.StudyInstanceUID, made.SeriesInstanceUID = first.StudyInstanceUID, derive("test", name, "series")
    made.PatientName, made.PatientID, made.Modality, made.ConversionType = first.PatientName, patient_id, "OT", "WSD"
    made.Rows = made.Columns = 8
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.add_new("PixelData", "OB", bytes(64))
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def rejection_note(files: Sequence[Path], path: Path, code: str, meaning: str) -> Path:
    """A Key Object that rejects these files' objects, as an image manager sends it."""
    objects = [pydicom.dcmread(one) for one in files]
    for one in objects:
        for keyword in ("AccessionNumber", "StudyID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            setattr(one, keyword, one.get(keyword))
        one.PatientName = "Note^Test"  # highdicom warns of names with one component
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=objects,
        content=hd.ko.KeyObjectSelection(Code(code, "DCM", meaning), objects),
        series_instance_uid=derive("test note series", path.name),
        series_number=99,
        sop_instance_uid=derive("test note", path.name, str(objects[0].StudyInstanceUID)),
        instance_number=1,
        manufacturer="test",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    note.save_as(path, enforce_file_format=True)
    return path


def rejected_by(notes: Sequence[Dataset]) -> dict[str, set[str]]:
    """What rejection notes name, by title: SOP Instance UIDs."""
    found: dict[str, set[str]] = {}
    for note in notes:
        (study,) = note.CurrentRequestedProcedureEvidenceSequence
        uids = {
            str(o.ReferencedSOPInstanceUID) for s in study.ReferencedSeriesSequence for o in s.ReferencedSOPSequence
        }
        found.setdefault(str(note.ConceptNameCodeSequence[0].CodeValue), set()).update(uids)
    return found


def said(dataset: Dataset) -> str:
    """The texts of a structured report."""
    own = str(dataset.get("TextValue", ""))
    return "\n".join([own, *(said(item) for item in dataset.get("ContentSequence", ()))])
