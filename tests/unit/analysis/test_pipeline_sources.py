"""What the pipeline hands to the reports: source headers, labels on the source frames, the digest of the method."""

from pathlib import Path

import numpy as np

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.pipeline import Analysis, Method
from dicomnode.analysis.series.selection import group, read_headers, select
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.analysis.volume.load import load
from tests.helpers.ct_files import ct_series, enhanced, write


def test_labels_of_one_part_lie_on_their_frames_of_the_multi_frame_image(tmp_path: Path) -> None:
    first, second = ct_series(AcquisitionNumber="1"), ct_series(np.ones((40, 4, 6), np.int16), AcquisitionNumber="2")
    mixed = [d for pair in zip(reversed(first), second, strict=True) for d in pair]
    chosen = select(group(read_headers(write([enhanced(mixed)], tmp_path))[0])).chosen
    assert chosen is not None
    assert chosen.part == "AcquisitionNumber 1"
    volume = load(chosen)
    labels = (np.arange(volume.hu.size).reshape(volume.hu.shape) % 3).astype(np.uint8)
    analysis = Analysis(Findings("analysed"), (chosen.headers[0].source,), volume, labels)
    found = analysis.labels_in_source
    assert found.shape == (80, 4, 6)
    assert np.array_equal(found[::2], labels[::-1])
    assert not found[1::2].any()


def test_the_rules_belong_to_the_method() -> None:
    digests = {Method(ClassicalSegmenter(), None, None, rules).digest for rules in (Rules(), Rules(min_slices=21))}
    assert len(digests) == 2
    assert Method(ClassicalSegmenter(), None, None).digest in digests
