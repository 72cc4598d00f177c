"""The demo's input: a synthetic patient's chest CT as a scanner would send it, and another patient's head series.

Everything derives from the phantom's seed, UIDs included: a demo sent twice to a PACS is there once. No patient data.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.phantom import phantom

_SEED = 20260
_INTERCEPT = -1024


@dataclass(frozen=True)
class _Acquisition:
    """The attributes in which the demo's series differ."""

    study: str
    number: int
    description: str
    image_type: tuple[str, ...]
    kernel: str
    body_part: str
    thickness_mm: float


def write(folder: Path) -> list[Path]:
    """Write the demo's DICOM files into `folder`, one folder a series, and return the paths as acquired.

    Raises:
        OSError: the folder cannot be written.
    """
    disease = phantom.Disease.of_severity(0.45)
    scanner = phantom.PhantomScanner(noise_hu=28.0, sharpness=0.8)
    volume = phantom.chest(_SEED, disease=disease, scanner=scanner).volume
    return [
        *_save(folder / "1-localizer", _localizer(volume)),
        *_save(folder / "2-axial", _axial(volume)),
        *_save(folder / "3-coronal", _coronal(volume)),
        *_save(folder / "other-patient-head", _head()),
    ]


def _save(folder: Path, images: Iterator[Dataset]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for image in images:
        path = folder / f"{image.InstanceNumber:04d}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _axial(volume: Volume) -> Iterator[Dataset]:
    a = _Acquisition(
        "chest", 2, "Thorax 1.5 lung", ("ORIGINAL", "PRIMARY", "AXIAL"), "LUNG", "CHEST", volume.spacing_mm[0]
    )
    x, y, z = volume.origin_mm
    dz, dy, dx = volume.spacing_mm
    for i, hu in enumerate(volume.hu):
        yield _image(a, i + 1, hu, (x, y, z + i * dz), (1, 0, 0, 0, 1, 0), (dy, dx))


def _coronal(volume: Volume) -> Iterator[Dataset]:
    a = _Acquisition("chest", 3, "Thorax coronal", ("DERIVED", "SECONDARY", "REFORMATTED"), "STANDARD", "CHEST", 10.0)
    x, y, z = volume.origin_mm
    dz, dy, dx = volume.spacing_mm
    top = z + (volume.hu.shape[0] - 1) * dz
    step = max(1, round(10.0 / dy))
    for n, j in enumerate(range(step, volume.hu.shape[1] - step, step)):
        yield _image(a, n + 1, volume.hu[::-1, j, :], (x, y + j * dy, top), (1, 0, 0, 0, 0, -1), (dz, dx))


def _localizer(volume: Volume) -> Iterator[Dataset]:
    a = _Acquisition("chest", 1, "Topogram", ("ORIGINAL", "PRIMARY", "LOCALIZER"), "", "CHEST", 0.6)
    x, y, z = volume.origin_mm
    dz, dy, dx = volume.spacing_mm
    top = z + (volume.hu.shape[0] - 1) * dz
    projection = np.clip(volume.hu.astype(np.float32).mean(axis=1) * 1.6, _INTERCEPT, 3071)[::-1]
    middle = y + dy * volume.hu.shape[1] / 2
    yield _image(a, 1, projection.astype(np.int16), (x, middle, top), (1, 0, 0, 0, 0, -1), (dz, dx))


def _head() -> Iterator[Dataset]:
    """Concentric ellipses, enough to be another patient's head series.

    It is refused before anyone looks at its pixels.
    """
    a = _Acquisition("head", 1, "Head 5.0", ("ORIGINAL", "PRIMARY", "AXIAL"), "STANDARD", "HEAD", 5.0)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    r = np.hypot(x / 0.62, y / 0.8)
    hu = np.select([r < 0.86, r < 1.0, r < 1.06], [35, 900, 40], -1000).astype(np.int16)
    for i in range(12):
        yield _image(a, i + 1, hu, (-120.0, -120.0, 5.0 * i), (1, 0, 0, 0, 1, 0), (2.5, 2.5))


def _image(
    a: _Acquisition,
    number: int,
    hu: NDArray[np.int16],
    position: tuple[float, float, float],
    orientation: Sequence[int],
    pixel_spacing: tuple[float, float],
) -> Dataset:
    """One CT image (PS3.3 A.3), with the order's attributes that a scanner copies from its worklist."""
    ds = _patient_and_study(a.study)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = _uid(a.study, a.number, number)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.ImageType = list(a.image_type)
    ds.Modality = "CT"
    ds.Manufacturer, ds.ManufacturerModelName = "dicomnode", "phantom scanner"
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.SeriesDescription = _uid(a.study, a.number), a.number, a.description
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(a.study, "frame"), ""
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = ds.StudyDate
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = ds.StudyTime
    ds.InstanceNumber, ds.AcquisitionNumber, ds.PatientPosition = number, 1, "HFS"
    ds.BodyPartExamined, ds.ConvolutionKernel = a.body_part, a.kernel
    ds.KVP, ds.SliceThickness = "120", f"{a.thickness_mm:g}"
    ds.ImagePositionPatient = [f"{v:.4f}" for v in position]
    ds.ImageOrientationPatient = [str(v) for v in orientation]
    ds.PixelSpacing = [f"{v:g}" for v in pixel_spacing]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(_INTERCEPT), "1", "HU"
    stored = np.clip(hu.astype(np.int32) - _INTERCEPT, 0, 4095).astype("<u2")
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _patient_and_study(study: str) -> Dataset:
    chest = study == "chest"
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyInstanceUID, ds.StudyID = _uid(study), "1"
    ds.StudyDate, ds.StudyTime = "20260102", "101500"
    ds.AccessionNumber = "DEMO0001" if chest else "DEMO0002"
    ds.ReferringPhysicianName = "Referrer^Demo"
    ds.StudyDescription = "CT thorax" if chest else "CT head"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = (
        ("Phantom^Élodie", "DEMO-1", "DICOMNODE") if chest else ("Phantom^Other", "DEMO-2", "DICOMNODE")
    )
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19660504", "F", "059Y"
    request = Dataset()
    request.StudyInstanceUID, request.AccessionNumber = ds.StudyInstanceUID, ds.AccessionNumber
    request.RequestedProcedureID, request.RequestedProcedureDescription = "RP1", ds.StudyDescription
    request.ScheduledProcedureStepID = "SPS1"
    ds.RequestAttributesSequence = [request]
    return ds


def _uid(*parts: object) -> UID:
    """PS3.5 B.2: a UID from a 128-bit number under 2.25."""
    digest = hashlib.sha256("/".join(map(str, ("dicomnode demo", _SEED, *parts))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")
