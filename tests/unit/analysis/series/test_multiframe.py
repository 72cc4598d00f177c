"""Enhanced CT: the same volume as its slices one by one."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from dicomnode.analysis.series.headers import ImageHeader, read_headers
from dicomnode.analysis.series.selection import group, input_digest, select
from dicomnode.analysis.volume import load
from tests.helpers.ct_files import concatenation, ct_series, enhanced, write


def headers(datasets: list[Dataset], folder: Path) -> list[ImageHeader]:
    found, unreadable = read_headers(write(datasets, folder))
    assert not unreadable
    return found


@pytest.fixture
def singles() -> list[Dataset]:
    """Rescale differs from slice to slice, and the slices lie in no order."""
    datasets = ct_series(PatientPosition="FFS", SeriesDescription="Lung")
    for i, d in enumerate(datasets):
        d.RescaleIntercept = str(-1024 + i)
    return [datasets[i] for i in np.random.default_rng(1).permutation(len(datasets))]


@pytest.mark.parametrize("syntax", [None, RLELossless, DeflatedExplicitVRLittleEndian])
def test_the_volume_is_that_of_the_slices(tmp_path: Path, singles: list[Dataset], syntax: str | None) -> None:
    image = enhanced(singles)
    if syntax == RLELossless:
        image.compress(RLELossless, generate_instance_uid=False)
    elif syntax is not None:
        image.file_meta.TransferSyntaxUID = syntax
    expected = load.load(group(headers(singles, tmp_path / "single"))[0])
    selection = select(group(headers([image], tmp_path / "enhanced")))
    assert selection.chosen is not None
    found = load.load(selection.chosen)
    assert np.array_equal(found.hu, expected.hu)
    assert found.spacing_mm == expected.spacing_mm
    assert found.origin_mm == expected.origin_mm
    assert found.axes == expected.axes
    order = [[d.SOPInstanceUID for d in singles].index(f.sop_instance_uid) + 1 for f in expected.frames]
    assert [f.frame_number for f in found.frames] == order
    assert {f.sop_instance_uid for f in found.frames} == {image.SOPInstanceUID}
    assert found.paths == (tmp_path / "enhanced" / "000.dcm",)


def test_frames_say_what_single_images_say(tmp_path: Path, singles: list[Dataset]) -> None:
    frames = headers([enhanced(singles)], tmp_path)
    assert [h.frame_number for h in frames] == list(range(1, 41))
    for frame, single in zip(frames, singles, strict=True):
        for keyword in (
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
            "RescaleIntercept",
            "ConvolutionKernel",
            "PatientPosition",
            "FrameOfReferenceUID",
        ):
            assert frame.dataset[keyword].value == single[keyword].value
        assert frame.source.NumberOfFrames == 40
        assert "PixelData" not in frame.source


def test_the_parts_of_a_concatenation_are_one_image(tmp_path: Path, singles: list[Dataset]) -> None:
    expected = load.load(group(headers(singles, tmp_path / "single"))[0])
    parts = headers(concatenation(singles, 15), tmp_path / "parts")
    selection = select(group(parts))
    assert selection.chosen is not None
    assert not selection.rejected
    found = load.load(selection.chosen)
    assert np.array_equal(found.hu, expected.hu)
    assert len({f.sop_instance_uid for f in found.frames}) == 3
    assert len(input_digest(selection.chosen)) == 64


def test_a_part_that_is_missing_is_told(tmp_path: Path, singles: list[Dataset]) -> None:
    singles.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    (rejected,) = select(group(headers(concatenation(singles, 15)[:2], tmp_path))).rejected
    texts = {r.code: r.text for r in rejected.reasons}
    assert "2 of 3 parts" in texts["concatenation-incomplete"]


def test_two_concatenations_are_two_scans(tmp_path: Path, singles: list[Dataset]) -> None:
    images = concatenation(singles, 20) + concatenation(singles, 20)
    for image in images:
        image.SeriesInstanceUID = images[0].SeriesInstanceUID
    selection = select(group(headers(images, tmp_path)))
    assert selection.chosen is not None
    assert len(selection.chosen.headers) == 40
    assert [r.reasons[0].code for r in selection.rejected] == ["another-series-preferred"]


def test_the_digest_is_of_the_file_once(tmp_path: Path, singles: list[Dataset]) -> None:
    image = enhanced(singles)
    [whole] = group(headers([image], tmp_path / "a"))
    assert len(input_digest(whole)) == 64
    image.PixelData = image.PixelData[:-1] + b"\x7f"
    [other] = group(headers([image], tmp_path / "b"))
    assert input_digest(whole) != input_digest(other)


def no_groups(image: Dataset) -> None:
    del image.PerFrameFunctionalGroupsSequence


def one_group_short(image: Dataset) -> None:
    image.PerFrameFunctionalGroupsSequence.pop()


def no_positions(image: Dataset) -> None:
    for item in image.PerFrameFunctionalGroupsSequence:
        del item.PlanePositionSequence


def no_rescale(image: Dataset) -> None:
    for item in image.PerFrameFunctionalGroupsSequence:
        del item.PixelValueTransformationSequence


def localizer(image: Dataset) -> None:
    image.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (no_groups, "enhanced-ct"),
        (one_group_short, "enhanced-ct"),
        (no_positions, "no-geometry"),
        (no_rescale, "no-rescale"),
        (localizer, "localizer"),
    ],
)
def test_damaged_or_unsuitable(tmp_path: Path, singles: list[Dataset], change: object, code: str) -> None:
    image = enhanced(singles)
    change(image)  # type: ignore[operator]
    selection = select(group(headers([image], tmp_path)))
    assert selection.chosen is None
    assert code in {r.code for r in selection.rejected[0].reasons}


def test_cut_short(tmp_path: Path, singles: list[Dataset]) -> None:
    [path] = write([enhanced(singles)], tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    selection = select(group(read_headers([path])[0]))
    assert {r.code for r in selection.rejected[0].reasons} == {"truncated"}


def test_two_images_of_one_series_are_judged_apart(tmp_path: Path, singles: list[Dataset]) -> None:
    first, second = enhanced(singles), enhanced(singles[:10])
    second.SeriesInstanceUID = first.SeriesInstanceUID
    selection = select(group(headers([first, second], tmp_path)))
    assert selection.chosen is not None
    assert selection.chosen.part == f"multi-frame image {first.SOPInstanceUID}"
    assert [(r.slices, r.part) for r in selection.rejected] == [(10, f"multi-frame image {second.SOPInstanceUID}")]


def test_two_acquisitions_in_one_image_are_split(tmp_path: Path, singles: list[Dataset]) -> None:
    again = ct_series(np.ones((40, 4, 6), np.int16))
    for number, phase in enumerate((singles, again), start=1):
        for d in phase:
            d.AcquisitionNumber = number
    selection = select(group(headers([enhanced([*singles, *again])], tmp_path)))
    assert selection.chosen is not None
    assert selection.chosen.part == "AcquisitionNumber 1"
    assert [(r.slices, r.part) for r in selection.rejected] == [(40, "AcquisitionNumber 2")]
    expected = load.load(group(headers(singles, tmp_path / "single"))[0])
    assert np.array_equal(load.load(selection.chosen).hu, expected.hu)
