"""The DICOM segmentation of both lungs, made and written: highdicom as its user guide shows it, against ours."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

from dicomnode.analysis.series.selection import read_headers
from dicomnode.report import gc_pause, segmentation
from tests.benchmarks.inputs import chest, files
from tests.benchmarks.measured import Cost
from tests.helpers import report_cases

NAME = "SEG of two lungs, made and written"
STOCK = "highdicom `Segmentation`, its defaults"


def _inputs(case: str) -> tuple[list[pydicom.Dataset], np.ndarray]:
    headers = [header.dataset for header in read_headers(files(case))[0]]
    headers.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    # The case's own orientation matters to nobody here: both ways get the same labels.
    return headers, np.ascontiguousarray(chest(case)[1])


def _stock(case: str) -> Callable[[], int]:
    headers, labels = _inputs(case)
    algorithm = hd.AlgorithmIdentificationSequence("bench", codes.DCM.ArtificialIntelligence, "1")
    segments = [
        hd.seg.SegmentDescription(
            number,
            name,
            codes.SCT.AnatomicalStructure,
            codes.SCT.Lung,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, name in ((1, "Right lung"), (2, "Left lung"))
    ]

    def work() -> int:
        seg = hd.seg.Segmentation(
            headers, labels, "BINARY", segments, hd.UID(), 100, hd.UID(), 1, "bench", "bench", "1", "1"
        )
        return _written(seg)

    return work


def _ours(case: str) -> Callable[[], int]:
    headers, labels = _inputs(case)
    findings = report_cases.findings_of(headers)

    def work() -> int:
        with gc_pause.put_off():  # as `results.encode` does
            return _written(segmentation.encode(headers, labels, findings, report_cases.CONTEXT))

    return work


def _written(seg: pydicom.Dataset) -> int:
    with TemporaryDirectory() as folder:
        path = Path(folder, "seg.dcm")
        seg.save_as(path, enforce_file_format=True)
        return len(pydicom.dcmread(path).PixelData)


def agreement(stock: Cost, ours: Cost) -> str:
    """Bytes of pixels."""
    return "same bytes of pixels" if stock.found == ours.found else f"{stock.found} and {ours.found} bytes of pixels"


REPEATS = 3
WORK = {"stock": _stock, "ours": _ours}
