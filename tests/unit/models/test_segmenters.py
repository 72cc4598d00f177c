"""The table of segmenters, and one that is not of this house."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import SegmenterFamily
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.pipeline import analyse
from dicomnode.config import AnalysisTable
from dicomnode.config.analysis import SEGMENTER_KEYS, SegmenterName
from dicomnode.models import build, segmenters
from dicomnode.report import segmentation
from tests.helpers import report_cases as cases


class AnotherNetwork:
    """A network that has learnt from the classical segmenter, and well."""

    name = "another-net"
    version = "7"
    family: SegmenterFamily = "network"

    def __call__(self, volume: Volume) -> Labels:
        return ClassicalSegmenter()(volume)

    def lobes(self, volume: Volume, lungs: Labels) -> NDArray[np.uint8] | None:
        return None


def test_every_name_that_the_configuration_takes_has_a_factory_and_its_keys() -> None:
    assert set(segmenters.SEGMENTERS) == set(SEGMENTER_KEYS) == set(get_args(SegmenterName))
    keys = {key for keys in SEGMENTER_KEYS.values() for key in keys}
    assert keys <= set(AnalysisTable.model_fields)


def test_tables_have_one_segmenter_where_what_it_reads_agrees(tmp_path: Path) -> None:
    one = AnalysisTable(segmenter="lungmask", lungmask_weights=tmp_path / "a", lungmask_lobe_weights=tmp_path / "b")
    assert segmenters.is_same(one, one.model_copy(update={"bundle": "another"}))
    assert not segmenters.is_same(one, one.model_copy(update={"lungmask_lobe_weights": None}))
    assert not segmenters.is_same(one, AnalysisTable())
    # Weights that the classical segmenter does not read make no other one of it.
    assert segmenters.is_same(AnalysisTable(), AnalysisTable(lungmask_sha256="0" * 64))


def test_another_segmenter_comes_through_the_table_into_the_segmentation(
    monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setitem(segmenters.SEGMENTERS, "another", lambda _table: AnotherNetwork())  # type: ignore[arg-type]
    table = AnalysisTable(radiomics=False).model_copy(update={"segmenter": "another"})
    method = build.method(table)
    files = sorted((data / "chest_tiny_cip" / "ct-64Dicom").iterdir())
    analysis = analyse(files, method)
    assert analysis.findings.lungs is not None
    assert (analysis.findings.lungs.segmenter, analysis.findings.lungs.family) == ("another-net", "network")
    seg = segmentation.encode(analysis.headers, analysis.labels_in_source, analysis.findings, cases.CONTEXT)
    families = {
        segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmFamilyCodeSequence[0].CodeMeaning
        for segment in seg.SegmentSequence
    }
    assert families == {"Artificial Intelligence"}
