"""The areas by attenuation as a segmentation of their own."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.analysis.measures.attenuation import AREAS
from dicomnode.report import attenuation
from dicomnode.report.wording import DEMO
from tests.helpers import report_cases as cases


def areas(*names: str) -> NDArray[np.uint8]:
    """A box for each area, apart."""
    found = np.zeros((6, 32, 48), np.uint8)
    for k, name in enumerate(names):
        found[1 + k : 5, 4 : 8 + k, 6 * k : 6 * k + 4] = AREAS[name]
    return found


def test_each_area_is_a_segment_voxel_for_voxel() -> None:
    headers, mask = cases.synthetic(), areas(*AREAS)
    made = attenuation.encode(headers, mask, cases.findings_of(headers), cases.CONTEXT)
    assert made is not None
    seg = cases.reread(made)
    assert [s.SegmentLabel for s in seg.SegmentSequence] == [
        "Right high-attenuation area",
        "Left high-attenuation area",
        "Right low-attenuation area",
        "Left low-attenuation area",
    ]
    assert [s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in seg.SegmentSequence] == [
        "HAAREA",
        "HAAREA",
        "LAAREA",
        "LAAREA",
    ]
    sides = [s.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning for s in seg.SegmentSequence]
    assert sides == ["Right", "Left", "Right", "Left"]
    assert len({tuple(s.RecommendedDisplayCIELabValue) for s in seg.SegmentSequence}) == 4
    found = np.zeros_like(mask)
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        z = round(float(groups.PlanePositionSequence[0].ImagePositionPatient[2]) / 4)
        found[z][frame > 0] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    np.testing.assert_array_equal(found, mask)
    assert (seg.SeriesNumber, seg.SeriesDescription) == (9008, "Density: research use only")
    assert "smoothing=none" in seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


def test_numbers_count_from_one_without_a_gap() -> None:
    headers = cases.synthetic()
    made = attenuation.encode(headers, areas("left_high", "left_low"), cases.findings_of(headers), cases.CONTEXT)
    assert made is not None
    assert [(s.SegmentNumber, s.SegmentLabel[:4]) for s in made.SegmentSequence] == [(1, "Left"), (2, "Left")]


def test_without_any_area_there_is_no_map() -> None:
    headers = cases.synthetic()
    assert attenuation.encode(headers, areas(), cases.findings_of(headers), cases.CONTEXT) is None


def test_the_same_areas_give_the_same_bytes_and_a_synthetic_model_is_named() -> None:
    def once() -> bytes:
        headers = cases.synthetic()
        findings = cases.findings_of(headers, predicted=cases.risk())
        made = attenuation.encode(headers, areas(*AREAS), findings, cases.CONTEXT)
        assert made is not None
        assert DEMO in made.ContentDescription
        assert DEMO in made.SeriesDescription
        return cases.to_bytes(made)

    assert once() == once()


def test_what_cannot_be_encoded_is_refused() -> None:
    headers = cases.synthetic()
    findings = cases.findings_of(headers)
    with pytest.raises(ValueError, match="6 frames and the labels have 5"):
        attenuation.encode(headers, areas(*AREAS)[:5], findings, cases.CONTEXT)
    with pytest.raises(ValueError, match="have no lungs"):
        attenuation.encode(headers, areas(*AREAS), dataclasses.replace(findings, lungs=None), cases.CONTEXT)
