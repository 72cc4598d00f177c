"""`dicomnode analyze` on what is no plain stack of images: the mask lies on the original frames.

The truth is the mask of the same chest as it was scanned, straight and in single frames.
"""

import json
import subprocess
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import generate_uid
from scipy.ndimage import map_coordinates

from dicomnode.config import AnalysisTable
from dicomnode.operations import analyze
from dicomnode.report.outward.message import readings_in
from tests.helpers.ct_files import concatenation, enhanced, write

#: Every fourth row and column of a 512x512 chest: the geometry is the same, and each analysis takes a second or two.
COARSE = 4
TILT_DEGREES = 12.0


def coarse(data: Path) -> list[Dataset]:
    """The LIDC chest with larger pixels, feet first. The first pixel stays, so the position stays."""
    datasets = [pydicom.dcmread(p) for p in sorted((data / "chest_lidc0314_every4th").glob("*.dcm"))]
    datasets.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    for d in datasets:
        pixels = d.pixel_array[::COARSE, ::COARSE]
        d.Rows, d.Columns = pixels.shape
        d.PixelSpacing = [float(v) * COARSE for v in d.PixelSpacing]
        d.PixelData = np.ascontiguousarray(pixels).tobytes()
    return datasets


def analyse(source: Path, out: Path) -> dict[str, Any]:
    """`dicomnode analyze`, without a process of its own: to start one takes longer than these analyses."""
    assert analyze.run(source, out, AnalysisTable(bundle="", radiomics=False), attenuation_maps=True) == 0
    found: dict[str, Any] = json.loads((out / "findings.json").read_text("utf-8"))
    return found


def masks(out: Path, sources: dict[tuple[str, int | None], int], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Labels (slice, row, column), each frame of the SEG put where the source frame that it refers to lies."""
    seg = pydicom.dcmread(out / "seg.dcm")
    labels = np.zeros((len(sources), *shape), np.uint8)
    for mask, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        [source] = groups.DerivationImageSequence[0].SourceImageSequence
        frame = source.get("ReferencedFrameNumber")
        place = sources[source.ReferencedSOPInstanceUID, None if frame is None else int(frame)]
        labels[place][mask > 0] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return labels


def single(datasets: list[Dataset]) -> dict[tuple[str, int | None], int]:
    return {(d.SOPInstanceUID, None): i for i, d in enumerate(datasets)}


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def assert_valid(out: Path, validator: str) -> None:
    for path in sorted(out.glob("*.dcm")):
        done = subprocess.run([validator, str(path)], capture_output=True, text=True, check=False)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert not errors, f"{path.name}: {errors}"


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Dataset], NDArray[np.uint8]]:
    """The chest as it was scanned, and its mask."""
    folder = tmp_path_factory.mktemp("straight")
    datasets = coarse(data)
    write(datasets, folder / "in")
    analyse(folder / "in", folder / "out")
    labels = masks(folder / "out", single(datasets), (128, 128))
    assert {1, 2} <= set(np.unique(labels))
    return datasets, labels


def by_hand(datasets: list[Dataset]) -> Dataset:
    for d in datasets:
        # Vendor's values that the enhanced object restricts further.
        d.StudyID, d.SeriesNumber = "1", "1"
    return enhanced(datasets)


def by_highdicom(datasets: list[Dataset]) -> Dataset:
    return hd.legacy.LegacyConvertedEnhancedCTImage(datasets, generate_uid(), 7, generate_uid(), 1)


@pytest.mark.parametrize("make", [by_hand, by_highdicom])
def test_enhanced_ct(
    straight: tuple[list[Dataset], NDArray[np.uint8]],
    data: Path,
    tmp_path: Path,
    peer: Callable[[str, str], str],
    make: Callable[[list[Dataset]], Dataset],
) -> None:
    datasets = coarse(data)
    shuffled = [int(i) for i in np.random.default_rng(0).permutation(len(datasets))]
    image = make([datasets[i] for i in shuffled])
    write([image], tmp_path / "in")
    found = analyse(tmp_path / "in", tmp_path / "out")
    assert found["series"]["slices"] == len(datasets)
    groups = image.PerFrameFunctionalGroupsSequence
    heights = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in groups]
    order = np.argsort(np.argsort(heights))
    places = {(str(image.SOPInstanceUID), n + 1): int(order[n]) for n in range(len(datasets))}
    assert np.array_equal(masks(tmp_path / "out", places, (128, 128)), straight[1])
    assert_valid(tmp_path / "out", peer("dciodvfy", "dicom3tools"))


def test_a_concatenation(
    straight: tuple[list[Dataset], NDArray[np.uint8]], data: Path, tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    """One enhanced image in three files, in any order: the mask refers to the frames of the files that are there."""
    datasets = coarse(data)
    for d in datasets:
        d.StudyID, d.SeriesNumber = "1", "1"
    order = [int(i) for i in np.random.default_rng(1).permutation(len(datasets))]
    parts = concatenation([datasets[i] for i in order], 25)
    write(parts[::-1], tmp_path / "in")
    found = analyse(tmp_path / "in", tmp_path / "out")
    assert found["series"]["slices"] == len(datasets)
    frames = [(str(part.SOPInstanceUID), n + 1) for part in parts for n in range(int(part.NumberOfFrames))]
    places: dict[tuple[str, int | None], int] = dict(zip(frames, order, strict=True))
    assert np.array_equal(masks(tmp_path / "out", places, (128, 128)), straight[1])
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm", stop_before_pixels=True)
    referred = {i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referred == {part.SOPInstanceUID for part in parts}
    assert_valid(tmp_path / "out", peer("dciodvfy", "dicom3tools"))


def uneven(datasets: list[Dataset]) -> list[Dataset]:
    """Every fourth slice a little off, and a thickness that is not the step."""
    for number, d in enumerate(datasets):
        x, y, z = (float(v) for v in d.ImagePositionPatient)
        d.ImagePositionPatient = [x, y, z + 0.4 * (number % 4 == 1)]
        d.SliceThickness = "1.0"
    return datasets


def thin_with_gaps(datasets: list[Dataset]) -> list[Dataset]:
    for d in datasets:
        d.SliceThickness = "1.0"
    return datasets


def overlapping(datasets: list[Dataset]) -> list[Dataset]:
    for d in datasets:
        d.SliceThickness = "10"
    return datasets


def enhanced_without_step(datasets: list[Dataset]) -> list[Dataset]:
    image = by_hand(thin_with_gaps(datasets))
    for groups in (*image.SharedFunctionalGroupsSequence, *image.PerFrameFunctionalGroupsSequence):
        for measures in groups.get("PixelMeasuresSequence", ()):
            measures.SliceThickness = "1.0"
            if "SpacingBetweenSlices" in measures:
                del measures.SpacingBetweenSlices
    return [image]


def feet_first(datasets: list[Dataset]) -> list[Dataset]:
    """As a scanner writes them of a patient who lies the other way round: columns from left to right."""
    for d in datasets:
        x, y, z = (float(v) for v in d.ImagePositionPatient)
        d.ImagePositionPatient = [x + (d.Columns - 1) * float(d.PixelSpacing[1]), y, z]
        d.ImageOrientationPatient, d.PatientPosition = [-1, 0, 0, 0, 1, 0], "FFS"
        d.PixelData = np.ascontiguousarray(d.pixel_array[:, ::-1]).tobytes()
    return datasets


def oversized(datasets: list[Dataset]) -> list[Dataset]:
    """A field of view of 600 pixels, with air around the patient."""
    for d in datasets:
        pixels = d.pixel_array
        wide = np.full((600, 600), pixels.min(), pixels.dtype)
        wide[: pixels.shape[0], : pixels.shape[1]] = pixels
        d.Rows = d.Columns = 600
        d.PixelData = wide.tobytes()
    return datasets


def turned(datasets: list[Dataset]) -> list[Dataset]:
    """Tilted so that dcmqi can read it: its grid has no shear, and the first row must lie before every frame."""
    return tilted(datasets, -TILT_DEGREES)[0]


#: How far the mask on the source may differ from what was measured: not at all, but where that was resampled.
EXACT, RESAMPLED = 1e-6, 0.01


@pytest.mark.parametrize(
    ("change", "within"),
    [
        (uneven, RESAMPLED),
        (turned, RESAMPLED),
        (thin_with_gaps, EXACT),
        (overlapping, EXACT),
        (enhanced_without_step, EXACT),
        (feet_first, EXACT),
        (oversized, EXACT),
    ],
)
def test_other_readers_find_the_numbers_that_the_report_states(
    data: Path,
    tmp_path: Path,
    peer: Callable[[str, str], str],
    change: Callable[[list[Dataset]], list[Dataset]],
    within: float,
) -> None:
    """The volume by dcmqi and by SimpleITK, and the areas' share of it, against the findings and the report.

    dcmqi takes the distance between slices from the object; where it is missing, Slice Thickness.
    """
    write(change(coarse(data)), tmp_path / "in")
    found, out = analyse(tmp_path / "in", tmp_path / "out"), tmp_path / "out"
    lungs = {n: volume_ml(m) for n, m in by_dcmqi(out / "seg.dcm", tmp_path / "seg", peer).items()}
    areas = {n: volume_ml(m) for n, m in by_dcmqi(out / "attenuation.dcm", tmp_path / "map", peer).items()}
    reported = percentages_and_volumes(out / "measurements.dcm")
    for side in ("right", "left"):
        name, measured = f"{side.capitalize()} lung", found["quantities"][side]
        assert lungs[name] == pytest.approx(found["lungs"]["volume_ml"][side], rel=max(within, 1e-4))
        assert lungs[name] == pytest.approx(reported[name]["118565006"], rel=max(within, 1e-4), abs=0.51)
        for kind, key, code in (("high", "haa_percent", "HAA600_250"), ("low", "laa950_percent", "LAA950")):
            share = 100 * areas.get(f"{side.capitalize()} {kind}-attenuation area", 0.0) / lungs[name]
            assert share == pytest.approx(measured[key], rel=max(within, 1e-4), abs=100 * (within - EXACT) + 1e-6)
            assert share == pytest.approx(reported[name][code], abs=0.06 + 100 * (within - EXACT))
    if within == EXACT and change is not enhanced_without_step:
        source = sitk.ReadImage([str(p) for p in sorted((tmp_path / "in").iterdir())])
        voxels = int(pydicom.dcmread(out / "seg.dcm").pixel_array.sum())
        theirs = voxels * float(np.prod(source.GetSpacing())) / 1000
        assert theirs == pytest.approx(found["lungs"]["volume_ml"]["total"], rel=1e-4)


def by_dcmqi(path: Path, folder: Path, peer: Callable[[str, str], str]) -> dict[str, sitk.Image]:
    """The masks of a segmentation by their segments' labels."""
    folder.mkdir()
    command = [peer("segimage2itkimage", "dcmqi"), "--inputDICOM", str(path), "--outputDirectory", str(folder)]
    subprocess.run([*command, "-t", "nrrd"], check=True, capture_output=True)
    segments = pydicom.dcmread(path, stop_before_pixels=True).SegmentSequence
    return {s.SegmentLabel: sitk.ReadImage(str(folder / f"{s.SegmentNumber}.nrrd")) for s in segments}


def volume_ml(mask: sitk.Image) -> float:
    return float(np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * np.prod(mask.GetSpacing()) / 1000)


def percentages_and_volumes(path: Path) -> dict[str, dict[str, float]]:
    """The numbers of a report by structure and code."""
    return {
        site: {r.concept.value: float(r.value) for r in readings if r.derivation is None}
        for site, readings in groupby(readings_in(pydicom.dcmread(path)), key=lambda r: r.site)
    }


def test_the_images_open_first(data: Path, tmp_path: Path) -> None:
    """Their Series Number is the lowest, whatever it is; a report that was there before does not count."""
    datasets = coarse(data)
    for d in datasets:
        d.SeriesNumber = "30026"
    write(datasets, tmp_path / "in")
    analyse(tmp_path / "in", tmp_path / "out")
    ours = {p.stem: int(pydicom.dcmread(p).SeriesNumber) for p in (tmp_path / "out").glob("*.dcm")}
    assert ours == {"seg": 31001, "measurements": 31002, "summary": 31004, "pdf": 31007, "attenuation": 31008}
    for path in (tmp_path / "out").glob("*.dcm"):
        path.rename(tmp_path / "in" / f"ours-{path.name}")
    analyse(tmp_path / "in", tmp_path / "again")
    assert {int(pydicom.dcmread(p).SeriesNumber) for p in (tmp_path / "again").glob("*.dcm")} == set(ours.values())


def tilted(datasets: list[Dataset], degrees: float = TILT_DEGREES) -> tuple[list[Dataset], NDArray[np.float64]]:
    """The chest as a tilted gantry would have scanned it, and the straight voxel coordinates of each pixel."""
    volume = np.stack([d.pixel_array for d in datasets]).astype(np.float32)
    pixel, step = float(datasets[0].PixelSpacing[0]), 4.0
    x0, y0, z0 = (float(v) for v in datasets[0].ImagePositionPatient)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows, columns = np.mgrid[:128, :128]
    found, places = [], []
    for i, d in enumerate(datasets):
        # The slices turn about the middle of the field of view, as a gantry does.
        y, z = y0 + 64 * pixel * (1 - c), z0 + i * step + 64 * pixel * s
        place = np.stack([(z - rows * pixel * s - z0) / step, (y + rows * pixel * c - y0) / pixel, columns])
        image = pydicom.Dataset(d)
        image.file_meta = d.file_meta
        image.SOPInstanceUID = generate_uid()
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.ImagePositionPatient = [x0, f"{y:.4f}", f"{z:.4f}"]
        image.ImageOrientationPatient = [1, 0, 0, 0, f"{c:.8f}", f"{-s:.8f}"]
        image.PixelData = np.rint(map_coordinates(volume, place, order=1, cval=0)).astype(np.uint16).tobytes()
        found.append(image)
        places.append(place)
    return found, np.stack(places, axis=1)


def test_gantry_tilt(
    straight: tuple[list[Dataset], NDArray[np.uint8]], data: Path, tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    datasets, place = tilted(coarse(data))
    write(datasets, tmp_path / "in")
    found = analyse(tmp_path / "in", tmp_path / "out")
    assert "tilt-resampled" in {f["code"] for f in found["flags"]}
    ours = masks(tmp_path / "out", single(datasets), (128, 128))
    # Nearest neighbour: the straight mask at the tilted pixels' own places. A slice more or less at the ends of the
    # scan (where the tilt cuts off a wedge) is not compared.
    truth = map_coordinates(straight[1], place, order=0, cval=0)
    inside = (place[0] > 2) & (place[0] < len(datasets) - 3)
    for label in (1, 2):
        assert dice((ours == label) & inside, (truth == label) & inside) > 0.95
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm", stop_before_pixels=True)
    [measures] = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    voxel_ml = float(np.prod([*measures.PixelSpacing, measures.SpacingBetweenSlices])) / 1000
    assert np.count_nonzero(ours) * voxel_ml == pytest.approx(found["lungs"]["volume_ml"]["total"], rel=0.01)
    # The bound tells a mask in its place from one that is a pixel off.
    shifted = np.roll(ours, 1, axis=1)
    assert dice((ours > 0) & inside, (truth > 0) & inside) > dice((shifted > 0) & inside, (truth > 0) & inside) + 0.02
    assert_valid(tmp_path / "out", peer("dciodvfy", "dicom3tools"))
