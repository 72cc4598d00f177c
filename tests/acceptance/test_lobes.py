"""Lobes, and a patient with one lung: findings, SEG and SR through the pipeline, read by other people's programs.

The labels are a stub's: what is tested is the way from labels to objects, not a network.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from dicomnode.analysis.arrays import LEFT, LOBES, RIGHT, Labels, Volume
from dicomnode.analysis.findings import Findings, SegmenterFamily
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.pipeline import Analysis, Method, analyse
from dicomnode.results import encode
from tests.acceptance.validators import Peer, PixelMed, errors, said, without_the_known
from tests.helpers.ct_files import ct_series, write

SHAPE, SPACING = (60, 96, 96), (5.0, 4.0, 4.0)
NAMES = {
    "lobes": [
        "Right lung",
        "Left lung",
        "Right upper lobe",
        "Right middle lobe",
        "Right lower lobe",
        "Left upper lobe",
        "Left lower lobe",
    ],
    "swapped": ["Right lung", "Left lung"],
    "left lung": ["Left lung"],
    "right lung": ["Right lung"],
}


@dataclass(frozen=True)
class Stub:
    """Gives labels that are known, and cuts them into lobes by planes."""

    truth: Labels
    case: str
    name: str = "lungmask-stub"
    version: str = "1"
    family: SegmenterFamily = "network"

    def __call__(self, volume: Volume) -> Labels:
        gone = {"left lung": RIGHT, "right lung": LEFT}.get(self.case, 0)
        return np.where(self.truth == gone, 0, self.truth).astype(np.uint8)

    def lobes(self, volume: Volume, lungs: Labels) -> NDArray[np.uint8] | None:
        if self.case not in ("lobes", "swapped"):
            return None
        z, y, _ = np.indices(lungs.shape)
        upper = z * SPACING[0] > y * SPACING[1] - 40
        lobes = np.where(lungs == LEFT, np.where(upper, LOBES["left_upper_lobe"], LOBES["left_lower_lobe"]), 0)
        front = np.where(z > SHAPE[0] / 2, LOBES["right_upper_lobe"], LOBES["right_middle_lobe"])
        lobes = np.where(lungs == RIGHT, np.where(upper, front, LOBES["right_lower_lobe"]), lobes)
        if self.case == "swapped":
            lobes = np.where(lobes > 0, 6 - lobes, 0)
        return lobes.astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """One analysis and its objects on disk."""

    name: str
    analysis: Analysis
    folder: Path

    @property
    def findings(self) -> Findings:
        return self.analysis.findings


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    scan = phantom.chest(3, shape=SHAPE, spacing_mm=SPACING)
    images = ct_series(
        scan.volume.hu + np.int16(1024),
        step_mm=5.0,
        PixelSpacing=["4", "4"],
        lowest_mm=scan.volume.origin_mm,
        StudyDate="20250101",
        ReferringPhysicianName="",
        **dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"), ""),
    )
    folder = tmp_path_factory.mktemp("case")
    analysis = analyse(write(images, folder / "scan"), Method(Stub(scan.labels, request.param), None, None))
    assert analysis.findings.status == "analysed"
    checkpoint = encode.AnalysisCheckpoint.of(analysis)
    checkpoint.save(folder / "checkpoint")
    encode.encode(encode.AnalysisCheckpoint.restore(folder / "checkpoint"), encode.context(1_780_000_000.0), folder)
    return Case(request.param, analysis, folder)


def test_findings_have_what_there_is(case: Case) -> None:
    regions = {name.lower().replace(" ", "_").removesuffix("_lung") for name in NAMES[case.name]}
    found = set(case.findings.quantities)
    assert found & {"right", "left", *LOBES} == regions
    codes = {flag.code for flag in case.findings.flags}
    assert ("lobes-contradict" in codes) == (case.name == "swapped")
    assert ("one-lung" in codes) == case.name.endswith("lung")
    assert case.findings.lungs is not None
    volume = case.findings.lungs.volume_ml
    if case.name.endswith("lung"):
        assert min(volume.left, volume.right) == 0
        assert volume.total > 500
    if case.name == "lobes":
        total = sum(case.findings.quantities[lobe].volume_ml or 0 for lobe in LOBES)
        assert total == pytest.approx(volume.total)


def test_segments_are_the_structures_voxel_for_voxel(case: Case, peer: Peer, tmp_path: Path) -> None:
    seg = pydicom.dcmread(case.folder / "seg.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == NAMES[case.name]
    assert [s.SegmentNumber for s in seg.SegmentSequence] == list(range(1, len(NAMES[case.name]) + 1))
    sides = [
        s.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning
        for s in seg.SegmentSequence
    ]
    assert sides == [name.split()[0] for name in NAMES[case.name]]
    program = peer("segimage2itkimage", "dcmqi")
    said([program, "--inputDICOM", case.folder / "seg.dcm", "--outputDirectory", tmp_path, "-t", "nrrd"])
    assert case.analysis.labels is not None
    source = sitk.ReadImage([str(path) for path in sorted((case.folder / "scan").iterdir())])
    for number, name in enumerate(NAMES[case.name], start=1):
        mask = sitk.Resample(
            sitk.ReadImage(str(tmp_path / f"{number}.nrrd")), source, sitk.Transform(), sitk.sitkNearestNeighbor, 0
        )
        if name.endswith("lung"):
            expected = case.analysis.labels == (RIGHT if name.startswith("Right") else LEFT)
        else:
            expected = case.analysis.lobes == LOBES[name.lower().replace(" ", "_")]
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, expected)


def test_groups_refer_to_their_segments(case: Case, peer: Peer, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    reader = peer("tid1500reader", "dcmqi")
    said([reader, "--inputDICOM", case.folder / "measurements.dcm", "--outputMetadata", out])
    groups = json.loads(out.read_text(encoding="utf-8"))["Measurements"]
    lungs = [name for name in NAMES[case.name] if name.endswith("lung")]
    lobes = [name for name in NAMES[case.name] if name.endswith("lobe")]
    assert [g["TrackingIdentifier"] for g in groups] == [*lungs, "Lungs", *lobes]
    assert len({g["TrackingUniqueIdentifier"] for g in groups}) == len(groups)
    numbers = {g["TrackingIdentifier"]: g["ReferencedSegment"] for g in groups if g["TrackingIdentifier"] != "Lungs"}
    assert numbers == {name: number for number, name in enumerate(NAMES[case.name], start=1)}
    for group in groups:
        name = group["TrackingIdentifier"]
        region = name.lower().replace(" ", "_").removesuffix("_lung")
        volume = next(i["value"] for i in group["measurementItems"] if i["quantity"]["CodeValue"] == "118565006")
        assert float(volume) == pytest.approx(case.findings.quantities[region].volume_ml or 0, abs=0.51)


@pytest.mark.parametrize("name", ["seg", "measurements", "summary", "pdf"])
def test_dciodvfy_minds_nothing(case: Case, name: str, peer: Peer) -> None:
    assert errors(said([peer("dciodvfy", "dicom3tools"), case.folder / f"{name}.dcm"])) == []


@pytest.mark.parametrize("case", ["lobes", "left lung"], indirect=True)
def test_pixelmed_minds_nothing(case: Case, pixelmed: PixelMed) -> None:
    assert without_the_known(pixelmed(case.folder / "measurements.dcm")) == []
