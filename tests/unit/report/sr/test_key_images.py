"""Which image stands for what a group measured."""

import numpy as np
import pytest

from dicomnode.report import segmentation
from dicomnode.report.sr import key_images
from tests.helpers import report_cases as cases


@pytest.mark.parametrize("segments", [[1], [2], [1, 2]])
@pytest.mark.parametrize("alone", [None, 1, 2])
def test_the_middle_slice_of_what_there_is(segments: list[int], alone: int | None) -> None:
    """Of one lung all frames share the segment's number (PS3.3 C.7.6.16), which stands in another place then."""
    headers, labels = cases.synthetic(), cases.boxes()
    if alone is not None:
        labels = np.where(labels == alone, labels, 0).astype(np.uint8)
    seg = segmentation.encode(headers, labels, cases.findings_of(headers), cases.CONTEXT)
    image = key_images._middle(seg, segments)
    there = [k for k, part in enumerate(labels) if np.isin(part, segments).any()]
    if not there:
        assert image is None
        return
    assert image is not None
    uids = [str(header.SOPInstanceUID) for header in headers]
    middle = there[len(there) // 2]
    assert abs(uids.index(str(image.ReferencedSOPInstanceUID)) - middle) <= 1
