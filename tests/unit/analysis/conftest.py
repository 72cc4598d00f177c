"""Real chest CT as volumes, read by SimpleITK: a reader that is not ours, in the same axes (LPS, feet first)."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dicomnode.analysis.arrays import Volume


def read_by_simpleitk(folder: Path) -> Volume:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.DICOMOrient(reader.Execute(), "LPS")
    x, y, z = image.GetSpacing()
    hu = sitk.GetArrayFromImage(image).astype(np.int16)
    return Volume(hu, (z, y, x), image.GetOrigin(), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())


@pytest.fixture(scope="session")
def tiny_cip(data: Path) -> Volume:
    """A whole chest at 4 mm."""
    return read_by_simpleitk(data / "chest_tiny_cip" / "ct-64Dicom")


@pytest.fixture(scope="session")
def lidc0314(data: Path) -> Volume:
    """Scanned feet first; raised right hemidiaphragm, right upper lobe lesion. 0.8 mm pixels, 4 mm apart."""
    return read_by_simpleitk(data / "chest_lidc0314_every4th")
