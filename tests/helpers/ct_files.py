"""Small CT series made for tests: random pixels, any orientation, written with pydicom."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def ct_series(
    frames: NDArray[np.int16] | None = None,
    *,
    step_mm: float = 5.0,
    orientation: Iterable[float] = AXIAL,
    lowest_mm: Iterable[float] = (-10.0, -20.0, -300.0),
    **attributes: object,
) -> list[Dataset]:
    """CT images in the order of `frames` (slice, row, column; stored values, 40 slices unless given), feet first.

    The first lies at `lowest_mm`, each further one `step_mm` along the normal that points to the head. Any attribute of
    all images can be given by its keyword.
    """
    if frames is None:
        frames = np.random.default_rng(0).integers(0, 4096, (40, 4, 6)).astype(np.int16)
    direction = np.array(tuple(orientation))
    normal = np.cross(direction[:3], direction[3:])
    normal = normal if normal[2] >= 0 else -normal
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    datasets = []
    for i, frame in enumerate(frames):
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, generate_uid()
        d.ImageType, d.Modality, d.Manufacturer = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT", "SIEMENS"
        d.PatientName, d.PatientID = "Secret^Name", "SECRET-ID"
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame_of_reference
        d.InstanceNumber, d.PatientPosition, d.ConvolutionKernel = len(frames) - i, "HFS", "B60f"
        d.ImagePositionPatient = [f"{v:.6f}" for v in np.array(tuple(lowest_mm)) + i * step_mm * normal]
        d.ImageOrientationPatient = [f"{v:.10f}" for v in direction]
        d.PixelSpacing, d.SliceThickness = ["0.8", "0.7"], str(step_mm)
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.Rows, d.Columns = frame.shape
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
        d.RescaleSlope, d.RescaleIntercept = "1", "-1024"
        for keyword, value in attributes.items():
            setattr(d, keyword, value)
        d.PixelData = np.ascontiguousarray(frame).tobytes()
        d["PixelData"].VR = "OW"
        datasets.append(d)
    return datasets


def write(datasets: Iterable[Dataset], folder: Path) -> list[Path]:
    """The data sets as files 000.dcm, 001.dcm … in `folder`, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, d in enumerate(datasets):
        paths.append(folder / f"{i:03}.dcm")
        d.save_as(paths[-1], enforce_file_format=True)
    return paths


def enhanced(datasets: list[Dataset], **attributes: object) -> Dataset:
    """One Enhanced CT image (PS3.3 A.38.1) with these single-frame images as its frames, in the order given.

    Built by hand from its macros (PS3.3 C.7.6.16 and C.8.15.3); what all frames share stands in the shared groups.
    """
    first = datasets[0]
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in SHARED_WITH_SINGLE:
        if keyword in first:
            setattr(image, keyword, first[keyword].value)
    image.SOPClassUID, image.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    image.SeriesInstanceUID, image.ImageType = generate_uid(), ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    image.InstanceNumber, image.NumberOfFrames = 1, len(datasets)
    image.ContentDate, image.ContentTime, image.AcquisitionDateTime = "20200101", "120000", "20200101120000"
    image.PixelPresentation, image.VolumetricProperties = "MONOCHROME", "VOLUME"
    image.VolumeBasedCalculationTechnique, image.PresentationLUTShape = "NONE", "IDENTITY"
    image.BurnedInAnnotation, image.LossyImageCompression, image.ContentQualification = "NO", "00", "RESEARCH"
    image.AcquisitionContextSequence = []
    image.DeviceSerialNumber, image.SoftwareVersions, image.ManufacturerModelName = "1", "1", "by hand"
    organization, index = Dataset(), Dataset()
    organization.DimensionOrganizationUID = index.DimensionOrganizationUID = generate_uid()
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111
    image.DimensionOrganizationSequence, image.DimensionIndexSequence = [organization], [index]
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(first, "PixelSpacing", "SliceThickness")]
    shared.PlaneOrientationSequence = [_item(first, "ImageOrientationPatient")]
    frame_type = Dataset()
    frame_type.FrameType = image.ImageType
    frame_type.PixelPresentation, frame_type.VolumetricProperties = "MONOCHROME", "VOLUME"
    frame_type.VolumeBasedCalculationTechnique = "NONE"
    shared.CTImageFrameTypeSequence = [frame_type]
    shared.CTReconstructionSequence = [_item(first, "ConvolutionKernel")]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = [_frame_groups(d, i) for i, d in enumerate(datasets, start=1)]
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.PixelData = b"".join(d.PixelData for d in datasets)
    image["PixelData"].VR = "OW"
    return image


def concatenation(datasets: list[Dataset], frames: int) -> list[Dataset]:
    """The same as a concatenation (PS3.3 C.7.6.16.2.2.4): images of at most so many frames, in the order given."""
    starts = range(0, len(datasets), frames)
    common = {
        "SeriesInstanceUID": generate_uid(),
        "ConcatenationUID": generate_uid(),
        "SOPInstanceUIDOfConcatenationSource": generate_uid(),
        "InConcatenationTotalNumber": len(starts),
    }
    return [
        enhanced(
            datasets[start : start + frames],
            **common,
            InConcatenationNumber=number,
            ConcatenationFrameOffsetNumber=start,
        )
        for number, start in enumerate(starts, start=1)
    ]


SHARED_WITH_SINGLE = (
    *("SpecificCharacterSet", "Modality", "Manufacturer", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "SeriesDescription", "SeriesNumber", "BodyPartExamined"),
    *("PatientPosition", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation"),
)


def _frame_groups(dataset: Dataset, number: int) -> Dataset:
    groups, content = Dataset(), Dataset()
    content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [number]
    if dataset.get("AcquisitionNumber"):
        content.FrameAcquisitionNumber = int(dataset.AcquisitionNumber)
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = [_item(dataset, "ImagePositionPatient")]
    transformation = _item(dataset, "RescaleSlope", "RescaleIntercept")
    transformation.RescaleType = "HU"
    groups.PixelValueTransformationSequence = [transformation]
    return groups


def _item(dataset: Dataset, *keywords: str) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        if keyword in dataset:
            setattr(item, keyword, dataset[keyword].value)
    return item
