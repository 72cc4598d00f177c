"""The two inputs of the benchmarks: a real chest CT, and a synthetic one of 300 slices of 512x512 at 1 mm."""

import functools
import os
from pathlib import Path

import numpy as np

from dicomnode.analysis import phantom
from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.classical_segmenter import ClassicalSegmenter
from dicomnode.analysis.series import find_files, group, read_headers, select
from dicomnode.analysis.volume import load
from tests.benchmarks.measured import ROOT

CASES = ("chest_lidc0314_every4th", "synthetic 300x512x512")
#: Inputs are made once a checkout.
KEPT = ROOT / "build" / "benchmarks"


@functools.cache
def chest(case: str) -> tuple[Volume, Labels]:
    """A case's volume and its lungs."""
    if case == CASES[0]:
        data = Path(os.environ.get("DICOMNODE_TEST_DATA", ROOT.parent / "shared" / "data"))
        selection = select(group(read_headers(find_files(data / case))[0]), ())
        if selection.chosen is None:
            raise SystemExit(f"no series in {data / case}: set DICOMNODE_TEST_DATA")
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
