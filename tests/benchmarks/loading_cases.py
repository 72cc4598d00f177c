"""A CT series on disk to a volume in HU: SimpleITK's series reader against ours, which also judges every header."""

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from dicomnode.analysis.series.selection import group, read_headers, select
from dicomnode.analysis.volume.load import load
from tests.benchmarks.inputs import files
from tests.benchmarks.measured import Cost

NAME = "series to volume"
STOCK = "SimpleITK `ImageSeriesReader`, file names by GDCM"
Found = tuple[float, float, list[int]]


def _summary(hu: np.ndarray) -> Found:
    return float(hu.mean(dtype=np.float64)), float(hu[::7, ::5, ::3].std(dtype=np.float64)), list(hu.shape)


def _stock(case: str) -> Callable[[], Found]:
    folder = str(files(case)[0].parent)

    def work() -> Found:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        return _summary(sitk.GetArrayFromImage(sitk.DICOMOrient(reader.Execute(), "LPS")))

    return work


def _ours(case: str) -> Callable[[], Found]:
    paths = files(case)

    def work() -> Found:
        chosen = select(group(read_headers(paths)[0]), ()).chosen
        assert chosen is not None
        return _summary(load(chosen).hu)

    return work


def agreement(stock: Cost, ours: Cost) -> str:
    """Shape, mean and spread."""
    return "same shape, mean and SD" if np.allclose(stock.found[:2], ours.found[:2]) else "DIFFERENT"


REPEATS = 3
WORK = {"stock": _stock, "ours": _ours}
