"""Small CT series made for tests: random pixels, any orientation, written with pydicom."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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
