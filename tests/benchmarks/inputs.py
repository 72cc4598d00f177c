"""The two inputs of the benchmarks: a real chest CT, and a synthetic one of 300 slices of 512x512 at 1 mm."""

import functools
from pathlib import Path

import numpy as np

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.series.selection import find_files, group, read_headers, select
from dicomnode.analysis.volume.load import load
from tests.benchmarks.measured import ROOT
from tests.helpers.ct_files import ct_series, write
from tests.helpers.prerequisites import dicom_files

CASES = ("chest_lidc0314_every4th", "synthetic 300x512x512")
#: Inputs are made once a checkout.
KEPT = ROOT / "build" / "benchmarks"


@functools.cache
def chest(case: str) -> tuple[Volume, Labels]:
    """A case's volume and its lungs."""
    if case == CASES[0]:
        selection = select(group(read_headers(files(case))[0]), ())
        if selection.chosen is None:
            raise SystemExit(f"no series for {case}: set DICOMNODE_TEST_DATA")
        volume = load(selection.chosen)
        return volume, ClassicalSegmenter()(volume)
    shape, spacing = (300, 512, 512), (1.0, 0.7, 0.7)
    file = KEPT / "synthetic.npz"
    if not file.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        disease = phantom.Disease(ground_glass=0.15, reticulation=0.1)
        made = phantom.chest(3, shape=shape, spacing_mm=spacing, disease=disease)
        np.savez_compressed(file, hu=made.volume.hu, labels=made.labels, origin=made.volume.origin_mm)
    kept = np.load(file)
    x, y, z = kept["origin"].tolist()
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Volume(kept["hu"], spacing, (x, y, z), axes, ()), kept["labels"]


def files(case: str) -> list[Path]:
    """A case's DICOM files."""
    if case == CASES[0]:
        return dicom_files(case)
    folder = KEPT / "synthetic"
    if not folder.exists():
        volume, _ = chest(case)
        spacing = [str(volume.spacing_mm[1]), str(volume.spacing_mm[2])]
        stored = volume.hu + np.int16(1024)
        attributes = {"PixelSpacing": spacing, "BodyPartExamined": "CHEST", "StudyDate": "20250101"}
        empty = dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"), "")
        series = ct_series(stored, step_mm=volume.spacing_mm[0], ReferringPhysicianName="", **attributes, **empty)
        unfinished = KEPT / "synthetic.part"
        write(series, unfinished)
        unfinished.rename(folder)
    return find_files(folder)
