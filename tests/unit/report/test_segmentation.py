"""The segmentation: the labels at their places, deterministic bytes, and the source's header."""

import dataclasses
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.report import segmentation
from dicomnode.report.wording import DEMO
from tests.helpers import report_cases as cases


def masks_by_position(seg: Dataset) -> dict[tuple[int, float], NDArray[np.uint8]]:
    """(segment, z of the frame) to its pixels, read by pydicom."""
    frames = {}
    for pixels, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        frames[number, float(groups.PlanePositionSequence[0].ImagePositionPatient[2])] = pixels
    return frames


def test_every_voxel_is_where_its_source_image_is() -> None:
    headers, labels = cases.synthetic(), cases.boxes()
    seg = cases.reread(segmentation.encode(headers, labels, cases.findings_of(headers), cases.CONTEXT))
    frames = masks_by_position(seg)
    for number in (1, 2):
        for header, plane in zip(headers, labels, strict=True):
            frame = frames.get((number, float(header.ImagePositionPatient[2])))
            if frame is None:
                assert not (plane == number).any()
            else:
                np.testing.assert_array_equal(frame.astype(bool), plane == number)
    assert len(frames) == 7  # 4 frames with a right box, 3 with a left one: the empty ones are left out


def test_the_object_says_what_it_is() -> None:
    headers = cases.synthetic()
    seg = cases.reread(segmentation.encode(headers, cases.boxes(), cases.findings_of(headers), cases.CONTEXT))
    assert seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (seg.SegmentationType, seg.SeriesNumber, seg.Modality) == ("BINARY", 9001, "SEG")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Right lung", "Left lung"]
    modifiers = [
        s.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0] for s in seg.SegmentSequence
    ]
    assert [m.CodeMeaning for m in modifiers] == ["Right", "Left"]
    assert seg.FrameOfReferenceUID == "1.2.3.5"
    assert seg.ContributingEquipmentSequence[0].DeviceUID.startswith("2.25.")
    assert "research use only" in seg.SeriesDescription
    assert "research use only" in seg.ContentDescription
    assert seg.RequestAttributesSequence[0].RequestedProcedureID == "RP-1"
    assert (seg.ContentDate, seg.ContentTime) == ("20260102", "101112.000000")
    assert (seg.InstanceCreationDate, seg.SeriesTime) == ("20260102", "101112.000000")


def test_the_source_time_zone_holds_for_our_times() -> None:
    headers = cases.synthetic()
    for header in headers:
        header.TimezoneOffsetFromUTC = "+0200"
    seg = segmentation.encode(headers, cases.boxes(), cases.findings_of(headers), cases.CONTEXT)
    assert seg.ContentTime == "121112.000000"
    assert cases.reread(seg).TimezoneOffsetFromUTC == "+0200"


@pytest.mark.parametrize(
    ("name", "family", "code"),
    [
        ("lungmask-R231", "network", "123110"),
        ("classical", "morphology", "123104"),
        ("totalsegmentator", "network", "123110"),  # whatever it is called
    ],
)
def test_only_a_network_is_called_artificial_intelligence(name: str, family: str, code: str) -> None:
    headers = cases.synthetic()
    findings = cases.findings_of(headers, segmenter=name, family=family)
    seg = segmentation.encode(headers, cases.boxes(), findings, cases.CONTEXT)
    for segment in seg.SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmFamilyCodeSequence[0].CodeValue) == (name, code)


def test_a_demonstration_model_is_named_in_the_segmentation_too() -> None:
    headers = cases.synthetic()
    findings = cases.findings_of(headers, predicted=cases.risk("synthetic-demo"))
    seg = segmentation.encode(headers, cases.boxes(), findings, cases.CONTEXT)
    assert DEMO in seg.SeriesDescription
    assert DEMO in seg.ContentDescription


def test_encoding_twice_gives_the_same_bytes() -> None:
    def once() -> bytes:
        headers = cases.synthetic()
        return cases.to_bytes(segmentation.encode(headers, cases.boxes(), cases.findings_of(headers), cases.CONTEXT))

    assert once() == once()


@pytest.mark.parametrize(
    "missing",
    [
        "StudyID",
        "AccessionNumber",
        "PositionReferenceIndicator",
        "FrameOfReferenceUID",
        "SliceThickness",
        "PatientName",
    ],
)
def test_what_a_source_lacks_is_no_obstacle(missing: str) -> None:
    headers = cases.synthetic()
    for header in headers:
        del header[missing]
    seg = cases.reread(segmentation.encode(headers, cases.boxes(), cases.findings_of(headers), cases.CONTEXT))
    assert seg.FrameOfReferenceUID
    assert all(missing not in header for header in headers)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (4 if missing == "SliceThickness" else 1, 4)


def test_names_in_the_segmentation_are_the_source_bytes(data: Path) -> None:
    tag = Tag("PatientName")
    for path in sorted((data / "odd_pydicom" / "charset_files").glob("*.dcm")):
        file = pydicom.dcmread(path, stop_before_pixels=True)
        element = file.get_item(tag)
        if not isinstance(element, RawDataElement) or element.VR not in (None, "PN"):
            continue
        headers = cases.synthetic(2)
        for header in headers:
            for keyword in list(header.dir()):
                if header[keyword].VR in ("SQ", "PN", "LO"):
                    del header[keyword]
            if "SpecificCharacterSet" in file:
                header.SpecificCharacterSet = file.SpecificCharacterSet
            header[tag] = element._replace(VR="PN")
        labels = cases.boxes(4)[1:3]
        seg = segmentation.encode(headers, labels, cases.findings_of(headers), cases.CONTEXT)
        assert cases.reread(seg).get_item(tag).value == element.value, path.name


def test_orientations_that_differ_by_rounding_are_one() -> None:
    headers = cases.synthetic()
    stated = [[1, 0, 0, 0, 1, 0], [0.99999, 0, 0, 0, 1, 0.0002], [1, 1e-7, 0, 0, 1, 0]]
    for number, header in enumerate(headers):
        header.ImageOrientationPatient = stated[number % 3]
    seg = cases.reread(segmentation.encode(headers, cases.boxes(), cases.findings_of(headers), cases.CONTEXT))
    assert seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient == stated[0]
    assert [list(h.ImageOrientationPatient) for h in headers[:3]] == stated


@pytest.mark.parametrize(
    "macros",
    [
        (),
        ("PlaneOrientationSequence",),
        ("PixelMeasuresSequence",),
        ("PlaneOrientationSequence", "PixelMeasuresSequence"),
    ],
)
def test_a_multi_frame_source(macros: tuple[str, ...]) -> None:
    """Its orientation and pixel size may stand with each frame."""
    headers, labels = cases.synthetic(), cases.boxes()
    for header in headers:
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelRepresentation, header.SamplesPerPixel = 1, 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.RescaleIntercept, header.RescaleSlope, header.RescaleType = 0, 1, "HU"
        header.KVP, header.AcquisitionNumber = "120", 1
        header.add_new("PixelData", "OW", np.zeros((header.Rows, header.Columns), np.int16).tobytes())
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
        headers, series_instance_uid="1.2.3.6", series_number=5, sop_instance_uid="1.2.3.6.1", instance_number=1
    )
    (shared,) = enhanced.SharedFunctionalGroupsSequence
    for macro in macros:
        for groups in enhanced.PerFrameFunctionalGroupsSequence:
            setattr(groups, macro, shared[macro].value)
        del shared[macro]
    seg = cases.reread(segmentation.encode([enhanced], labels, cases.findings_of(headers), cases.CONTEXT))
    assert not [macro for macro in macros if macro in enhanced.SharedFunctionalGroupsSequence[0]]
    frames = masks_by_position(seg)
    np.testing.assert_array_equal(frames[1, 4.0].astype(bool), labels[1] == 1)


def test_what_cannot_be_encoded_is_refused() -> None:
    headers = cases.synthetic()
    findings = cases.findings_of(headers)
    with pytest.raises(ValueError, match="6 frames and the labels have 5"):
        segmentation.encode(headers, cases.boxes(5), findings, cases.CONTEXT)
    with pytest.raises(ValueError, match="one is 3"):
        segmentation.encode(headers, cases.boxes() + np.uint8(1), findings, cases.CONTEXT)
    with pytest.raises(ValueError, match="have no lungs"):
        segmentation.encode(headers, cases.boxes(), dataclasses.replace(findings, lungs=None), cases.CONTEXT)
