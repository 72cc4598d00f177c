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
from dicomnode.downloads import Installed
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


def test_profiles_share_a_second_segmenter_where_it_is_the_same(tmp_path: Path) -> None:
    one = AnalysisTable(second_segmenter="lungmask", lungmask_weights=tmp_path / "a")
    assert segmenters.is_second_same(one, one.model_copy(update={"bundle": "another"}))
    assert not segmenters.is_second_same(one, one.model_copy(update={"lungmask_step_mm": 2.5}))
    assert not segmenters.is_second_same(one, AnalysisTable())
    assert segmenters.is_second_same(AnalysisTable(), AnalysisTable(lungmask_sha256="0" * 64))


def test_a_second_segmenter_is_another_one_and_has_its_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is the first segmenter: nothing would be compared"):
        AnalysisTable(second_segmenter="classical")
    with pytest.raises(ValueError, match="second_segmenter = 'lungmask' needs it"):
        AnalysisTable(second_segmenter="lungmask")
    table = AnalysisTable(segmenter="lungmask", lungmask_weights=tmp_path / "a", second_segmenter="classical")
    made = segmenters.make_second(table)
    assert made is not None and made.name == "classical"
    assert segmenters.make_second(AnalysisTable()) is None


@pytest.mark.parametrize(
    ("file", "sha256", "name"),
    [
        ("unet_r231-d5d2fc3d.pth", "d5d2fc3d" + 56 * "0", "R231"),
        ("renamed.pth", "d5d2fc3d" + 56 * "0", "R231"),
        ("unet_r231-d5d2fc3d.pth", "abcdef01" + 56 * "0", "unet_r231-d5d2fc3d"),
        ("our own network (v2).pth", "abcdef01" + 56 * "0", "our-own-network-v2"),
        ("肺.pth", "abcdef01" + 56 * "0", "own"),
        (100 * "n" + ".pth", "abcdef01" + 56 * "0", 40 * "n"),
    ],
)
def test_weights_of_ones_own_are_named_by_their_file(file: str, sha256: str, name: str) -> None:
    assert segmenters._model_name(Installed(Path(file), sha256)) == name


def test_lungmask_is_offered_where_it_does_not_serve(tmp_path: Path) -> None:
    offered = segmenters.first_choice(AnalysisTable(weights=tmp_path))
    assert "weights fetch R231" in offered
    (tmp_path / "unet_r231-d5d2fc3d.pth").touch()
    (tmp_path / "installed.json").write_text('{"unet_r231-d5d2fc3d.pth": "d5"}')
    assert "is installed and the first choice" in segmenters.first_choice(AnalysisTable(weights=tmp_path))
    table = AnalysisTable(segmenter="lungmask", lungmask_weights=tmp_path / "a")
    assert segmenters.first_choice(table) == ""


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
