"""Cases 14 to 18 and 23 of docs/admin/hospital-cases.md on the whole way: C-STORE, the analysis, C-STORE to a PACS."""

import copy
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.report.uids import derive
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import study_uid
from tests.helpers.ct_files import enhanced, write

OBJECTS = {"SEG": 1, "SR": 1, "OT": 1}


class Hospital:
    """A node and its PACS; every test sends a study of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pacs = Pacs(folder / "pacs")
        self.pacs.start()
        more = "[analysis.selection]\nmin_coverage_mm = 100\n"
        self.station = Station(folder / "node", self.pacs.destination(), more=more)
        self.station.start_worker()

    def analysed(self, name: str, datasets: Sequence[Dataset]) -> dict[str, Any]:
        """What `jobs show` says of the study called `name`, once it has ended."""
        for dataset in datasets:
            dataset.StudyInstanceUID = study_uid(name)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        self.station.send(write(datasets, self.folder / name))
        generation = self.station.settle(study_uid(name))
        return self.station.ended(study_uid(name), generation, "delivered", "refused", "failed")

    def flags(self, shown: dict[str, Any]) -> set[str]:
        findings = json.loads((Path(shown["results"]) / "findings.json").read_text("utf-8"))
        return {flag["code"] for flag in findings["flags"]}

    def delivered(self, name: str) -> dict[str, Dataset]:
        """What the PACS holds of the study, by modality."""
        held = self.pacs.held(study_uid(name))
        assert Counter(one.Modality for one in held) == OBJECTS
        return {one.Modality: one for one in held}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    made = Hospital(tmp_path_factory.mktemp("hospital"))
    with running(made.pacs, made.station):
        yield made


@pytest.fixture
def chest(data: Path) -> list[Dataset]:
    """79 axial slices of 64 x 64, 4 mm apart, feet first."""
    found = [pydicom.dcmread(path) for path in (data / "chest_tiny_cip" / "ct-64Dicom").glob("*.dcm")]
    return sorted(found, key=lambda one: float(one.ImagePositionPatient[2]))


def series(datasets: Sequence[Dataset], name: str, **attributes: object) -> list[Dataset]:
    """The same images as a series called `name`, each under a UID of its own."""
    made = []
    for number, dataset in enumerate(datasets):
        one = copy.deepcopy(dataset)
        one.SeriesInstanceUID = derive("test series", name)
        one.SOPInstanceUID = derive("test instance", name, str(number))
        for keyword, value in attributes.items():
            setattr(one, keyword, value)
        made.append(one)
    return made


def brighter(datasets: Sequence[Dataset]) -> list[Dataset]:
    for dataset in datasets:
        dataset.PixelData = (dataset.pixel_array + 20).astype(dataset.pixel_array.dtype).tobytes()
    return list(datasets)


def test_case_14_two_phases_in_one_series_are_judged_apart(hospital: Hospital, chest: list[Dataset]) -> None:
    first = series(chest, "14a", AcquisitionNumber=1)
    second = brighter(series(chest, "14b", AcquisitionNumber=2, SeriesInstanceUID=first[0].SeriesInstanceUID))
    shown = hospital.analysed("14", [*first, *second])
    assert shown["state"] == "delivered"
    chosen, other = (row["decided"] for row in shown["series"])
    assert chosen.startswith("chosen: AcquisitionNumber 1")
    assert other.startswith("another-series-preferred")
    assert "part-of-series" in hospital.flags(shown)
    assert referenced(hospital.delivered("14")["SEG"]) <= {one.SOPInstanceUID for one in first}


def test_case_14_identical_copies_are_left_out_with_a_flag(hospital: Hospital, chest: list[Dataset]) -> None:
    first = series(chest, "14c")
    copies = series(chest[:20], "14d", SeriesInstanceUID=first[0].SeriesInstanceUID)
    shown = hospital.analysed("14 copies", [*first, *copies])
    assert shown["state"] == "delivered"
    assert "copies-left-out" in hospital.flags(shown)


def test_case_14_images_that_nothing_tells_apart_are_refused(hospital: Hospital, chest: list[Dataset]) -> None:
    first = series(chest, "14e", InstanceNumber=None)
    second = brighter(series(chest, "14f", InstanceNumber=None, SeriesInstanceUID=first[0].SeriesInstanceUID))
    shown = hospital.analysed("14 mixed", [*first, *second])
    assert shown["state"] == "refused"
    assert "duplicate-positions" in shown["reason"]
    assert hospital.pacs.held(study_uid("14 mixed")) == []


def test_case_15_what_is_no_scan_is_not_chosen_and_says_why(hospital: Hospital, chest: list[Dataset]) -> None:
    scan = series(chest, "15 scan")
    others = {
        "localizer": series(chest[:1], "15 localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "not-ct-image": series(
            chest[:1], "15 dose", SOPClassUID=SecondaryCaptureImageStorage, ImageType=["DERIVED", "SECONDARY", "DOSE"]
        ),
        "not-axial": series(
            chest, "15 coronal", ImageType=["ORIGINAL", "PRIMARY", "MPR"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1]
        ),
        "derived": series(chest, "15 derived", ImageType=["DERIVED", "SECONDARY", "AXIAL"]),
    }
    for number, image in enumerate(others["not-axial"]):
        image.ImagePositionPatient = [0, -150 + 4 * number, 0]
    shown = hospital.analysed("15", [*scan, *(image for images in others.values() for image in images)])
    assert shown["state"] == "delivered"
    decided = {row["series_uid"]: row["decided"] for row in shown["series"]}
    assert decided.pop(scan[0].SeriesInstanceUID).startswith("chosen")
    codes = {images[0].SeriesInstanceUID: code for code, images in others.items()}
    assert {uid: text.partition(":")[0] for uid, text in decided.items()} == codes
    assert referenced(hospital.delivered("15")["SEG"]) <= {one.SOPInstanceUID for one in scan}


def test_case_16_a_tilted_gantry_is_resampled_and_the_mask_lies_on_the_originals(
    hospital: Hospital, chest: list[Dataset]
) -> None:
    cosine, sine = np.cos(np.radians(12)), np.sin(np.radians(12))
    scan = series(chest, "16", ImageOrientationPatient=[1, 0, 0, 0, f"{cosine:.8f}", f"{-sine:.8f}"])
    shown = hospital.analysed("16", scan)
    assert shown["state"] == "delivered"
    assert "tilt-resampled" in hospital.flags(shown)
    assert_frames_lie_on_their_sources(hospital.delivered("16")["SEG"], scan)


def test_case_16_more_tilt_than_a_gantry_has_is_refused(hospital: Hospital, chest: list[Dataset]) -> None:
    cosine, sine = np.cos(np.radians(35)), np.sin(np.radians(35))
    scan = series(chest, "16 steep", ImageOrientationPatient=[1, 0, 0, 0, f"{cosine:.8f}", f"{-sine:.8f}"])
    shown = hospital.analysed("16 steep", scan)
    assert shown["state"] == "refused"
    assert "gantry-tilt" in shown["reason"]


@pytest.mark.parametrize(("step_mm", "flag"), [(1.4, "gaps-filled"), (4.0, None)], ids=["small", "large"])
def test_case_17_a_missing_slice_is_filled_with_a_flag_or_refuses_the_series(
    hospital: Hospital, chest: list[Dataset], step_mm: float, flag: str | None
) -> None:
    name = f"17 {step_mm}"
    scan = series(chest, name, SliceThickness=step_mm)
    for number, image in enumerate(scan):
        image.ImagePositionPatient = [*image.ImagePositionPatient[:2], f"{number * step_mm:.2f}"]
    shown = hospital.analysed(name, [*scan[:40], *scan[41:]])
    assert shown["state"] == ("delivered" if flag else "refused")
    if flag:
        assert flag in hospital.flags(shown)
        assert_frames_lie_on_their_sources(hospital.delivered(name)["SEG"], scan)
    else:
        assert "missing-slices" in shown["reason"]


def test_case_17_the_spacing_comes_from_the_positions(hospital: Hospital, chest: list[Dataset]) -> None:
    shown = hospital.analysed("17 thickness", series(chest, "17 thickness", SliceThickness=1, SpacingBetweenSlices=2))
    assert "slice-thickness-differs" in hospital.flags(shown)
    measures = hospital.delivered("17 thickness")["SEG"].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    steps = np.diff([float(one.ImagePositionPatient[2]) for one in chest])
    assert float(measures.SpacingBetweenSlices) == pytest.approx(np.median(steps), abs=0.01)


def test_case_18_an_enhanced_multi_frame_ct_is_read_through_its_functional_groups(
    hospital: Hospital, chest: list[Dataset]
) -> None:
    order = [int(i) for i in np.random.default_rng(0).permutation(len(chest))]
    image = enhanced([chest[i] for i in order])
    shown = hospital.analysed("18", [image])
    assert shown["state"] == "delivered"
    assert shown["instances"] == 1
    segmentation = hospital.delivered("18")["SEG"]
    assert referenced(segmentation) == {image.SOPInstanceUID}
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        number = int(source_of(groups).ReferencedFrameNumber)
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, chest[order[number - 1]].ImagePositionPatient, atol=1e-3)


def test_case_23_another_reader_finds_the_mask_in_the_lungs(
    hospital: Hospital, chest: list[Dataset], tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    """dcmqi reads what the PACS holds, ITK reads the scan: the air in the mask is in its place, right and left."""
    scan = series(chest, "23")
    hospital.analysed("23", scan)
    hospital.delivered("23")["SEG"].save_as(tmp_path / "seg.dcm")
    command = [peer("segimage2itkimage", "dcmqi"), "--inputDICOM", str(tmp_path / "seg.dcm")]
    subprocess.run([*command, "--outputDirectory", str(tmp_path), "-t", "nrrd"], check=True, capture_output=True)
    source = sitk.ReadImage([str(path) for path in sorted((hospital.folder / "23").glob("*.dcm"))])
    hounsfield = sitk.GetArrayFromImage(source)
    middle_x = []
    for number in (1, 2):
        mask = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        on_scan = sitk.Resample(mask, source, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        inside = sitk.GetArrayFromImage(on_scan) > 0
        assert inside.sum() == np.count_nonzero(sitk.GetArrayFromImage(mask))
        in_place = hounsfield[inside].mean()
        assert in_place < -600
        for axis in range(3):
            assert hounsfield[np.roll(inside, 3, axis)].mean() > in_place + 20
        columns = float(np.nonzero(inside)[2].mean())
        middle_x.append(source.TransformContinuousIndexToPhysicalPoint((columns, 0.0, 0.0))[0])
    assert middle_x[0] < middle_x[1]  # patient coordinates grow to the left: segment 1 is the right lung


def source_of(groups: Dataset) -> Dataset:
    (source,) = groups.DerivationImageSequence[0].SourceImageSequence
    return source


def referenced(segmentation: Dataset) -> set[str]:
    return {source_of(g).ReferencedSOPInstanceUID for g in segmentation.PerFrameFunctionalGroupsSequence}


def assert_frames_lie_on_their_sources(segmentation: Dataset, scan: Sequence[Dataset]) -> None:
    by_uid = {one.SOPInstanceUID: one for one in scan}
    orientation = segmentation.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        source = by_uid[source_of(groups).ReferencedSOPInstanceUID]
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, source.ImagePositionPatient, atol=1e-3)
        np.testing.assert_allclose(orientation, source.ImageOrientationPatient, atol=1e-6)
