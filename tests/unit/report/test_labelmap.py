"""The label map of frames of any size."""

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.uid import RLELossless

from dicomnode.conformance.sample import SOURCE, VARIANTS, complete
from dicomnode.report import labelmap
from tests.helpers.ct_files import write


def test_frames_of_an_odd_number_of_pixels_are_compressed_too(tmp_path: Path) -> None:
    (variant,) = (one for one in VARIANTS if one.name == SOURCE)
    sample = variant.change(complete(parts=False))
    assert sample.labels[0].size % 2 == 1
    made = labelmap.encode(sample.headers, sample.labels, sample.findings, sample.context)
    (path,) = write([made], tmp_path)
    read = dcmread(path)
    assert read.file_meta.TransferSyntaxUID == RLELossless
    assert read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    np.testing.assert_array_equal(read.pixel_array, sample.labels[sample.labels.any(axis=(1, 2))])
