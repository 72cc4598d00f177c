"""Results as files: whole or not at all, and the same bytes for the same input."""

from pathlib import Path

import numpy as np
import pytest

from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.pipeline import Analysis, Method, analyse
from dicomnode.results import encode
from tests.helpers.ct_files import ct_series, write


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    scan = phantom.chest(3, shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0)).volume
    images = ct_series(scan.hu + np.int16(1024), step_mm=5.0, PixelSpacing=["4", "4"], lowest_mm=scan.origin_mm)
    files = write(images, tmp_path_factory.mktemp("scan"))
    found = analyse(files, Method(ClassicalSegmenter(), None, None))
    assert found.findings.status == "analysed", found.findings.rejected
    return found


def test_a_checkpoint_is_restored_as_it_was_saved(analysis: Analysis, tmp_path: Path) -> None:
    saved = encode.AnalysisCheckpoint.of(analysis)
    saved.save(tmp_path)
    restored = encode.AnalysisCheckpoint.restore(tmp_path)
    assert restored.findings == saved.findings
    assert restored.sources == saved.sources
    np.testing.assert_array_equal(restored.labels_in_source, saved.labels_in_source)
    np.testing.assert_array_equal(restored.views.coronal.hu, saved.views.coronal.hu)


def test_encoding_a_restored_checkpoint_gives_the_same_bytes(analysis: Analysis, tmp_path: Path) -> None:
    context = encode.context(1_780_000_000.0, "NODE")
    checkpoint = encode.AnalysisCheckpoint.of(analysis)
    first = encode.encode(checkpoint, context, tmp_path / "a")
    checkpoint.save(tmp_path / "c")
    second = encode.encode(encode.AnalysisCheckpoint.restore(tmp_path / "c"), context, tmp_path / "b")
    assert [o.name for o in first] == ["seg", "measurements", "summary"]
    for a, b in zip(first, second, strict=True):
        assert a.sop_instance_uid == b.sop_instance_uid
        assert a.path.read_bytes() == b.path.read_bytes()


def test_a_refused_study_has_nothing_to_encode() -> None:
    with pytest.raises(ValueError, match="nothing to encode"):
        encode.AnalysisCheckpoint.of(analyse([], Method(ClassicalSegmenter(), None, None)))
