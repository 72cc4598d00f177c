"""One scan stays whole; scans that lie over one another are told apart."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from dicomnode.analysis.series import parts
from dicomnode.analysis.series.headers import ImageHeader, read_headers
from dicomnode.analysis.series.selection import Selection, group, select
from tests.helpers.ct_files import ct_series, write

UIDS = {k: generate_uid() for k in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}


def scan(seed: int = 0, slices: int = 40, **attributes: object) -> list[Dataset]:
    pixels = np.random.default_rng(seed).integers(0, 4096, (slices, 3, 4)).astype(np.int16)
    return ct_series(pixels, **{**UIDS, **attributes})  # type: ignore[arg-type]


def numbered(datasets: list[Dataset], keyword: str, values: list[object]) -> list[Dataset]:
    for d, value in zip(datasets, values, strict=True):
        setattr(d, keyword, value)
    return datasets


def found(datasets: list[Dataset]) -> list[tuple[str, int]]:
    [series] = group(ImageHeader(Path("in memory"), d) for d in datasets)
    return [(s.part, len(s.headers)) for s in parts.split(series)]


def times(start: int, step: int = 1) -> list[object]:
    return [f"{120000 + start + i * step}.5" for i in range(40)]


UP, LOW = (-10, -20, -299), (-10, -20, -300)

SPLIT: dict[str, tuple[list[Dataset], list[tuple[str, int]]]] = {
    "acquisitions": (
        scan(AcquisitionNumber="2") + scan(1, AcquisitionNumber="5"),
        [("AcquisitionNumber 2", 40), ("AcquisitionNumber 5", 40)],
    ),
    "acquisitions at other positions": (
        scan(AcquisitionNumber="1") + scan(1, AcquisitionNumber="2", lowest_mm=(-10, -20, -297.7)),
        [("AcquisitionNumber 1", 40), ("AcquisitionNumber 2", 40)],
    ),
    "acquisitions that share a part, off one another's grid": (
        scan(AcquisitionNumber="1") + scan(1, AcquisitionNumber="2", lowest_mm=(-10, -20, -137.7)),
        [("AcquisitionNumber 1", 40), ("AcquisitionNumber 2", 40)],
    ),
    "passes that only time tells apart": (
        numbered(scan(), "AcquisitionTime", times(0))
        + numbered(scan(1, lowest_mm=(-10, -20, -137.7)), "AcquisitionTime", times(100)),
        [("AcquisitionTime: 1 of 2", 40), ("AcquisitionTime: 2 of 2", 40)],
    ),
    "there and back": (
        numbered(scan(), "AcquisitionTime", times(0))
        + numbered(scan(1, lowest_mm=(-10, -20, -137.7)), "AcquisitionTime", times(139, -1)),
        [("AcquisitionTime: 1 of 2", 40), ("AcquisitionTime: 2 of 2", 40)],
    ),
    "one of them shorter": (
        scan(AcquisitionNumber="1") + scan(1, 15, AcquisitionNumber="2", lowest_mm=(-10, -20, -250)),
        [("AcquisitionNumber 1", 40), ("AcquisitionNumber 2", 15)],
    ),
    "temporal positions": (
        scan(TemporalPositionIdentifier="1") + scan(1, TemporalPositionIdentifier="2"),
        [("TemporalPositionIdentifier 1", 40), ("TemporalPositionIdentifier 2", 40)],
    ),
    "trigger times": (
        [d for t in (0, 30, 60) for d in scan(t, TriggerTime=str(t))],
        [("TriggerTime 0", 40), ("TriggerTime 30", 40), ("TriggerTime 60", 40)],
    ),
    "acquisitions, each at two kernels": (
        [d for n in "12" for k in ("B31f", "B60f") for d in scan(int(n), AcquisitionNumber=n, ConvolutionKernel=k)],
        [
            ("AcquisitionNumber 1, ConvolutionKernel B31f", 40),
            ("AcquisitionNumber 1, ConvolutionKernel B60f", 40),
            ("AcquisitionNumber 2, ConvolutionKernel B31f", 40),
            ("AcquisitionNumber 2, ConvolutionKernel B60f", 40),
        ],
    ),
    "comments are not shown": (
        scan(ImageComments="SECRET insp") + scan(1, ImageComments="SECRET exp"),
        [("ImageComments: 1 of 2", 40), ("ImageComments: 2 of 2", 40)],
    ),
    "one time for each scan": (
        scan(AcquisitionTime="120000") + scan(1, AcquisitionTime="120130"),
        [("AcquisitionTime: 1 of 2", 40), ("AcquisitionTime: 2 of 2", 40)],
    ),
    "one date and time for each pass, off the other's grid": (
        scan(AcquisitionDateTime="20260102120000")
        + scan(1, AcquisitionDateTime="20260102120130", lowest_mm=(-10, -20, -137.7)),
        [("AcquisitionDateTime: 1 of 2", 40), ("AcquisitionDateTime: 2 of 2", 40)],
    ),
    "a time for each slice": (
        numbered(scan(), "ContentTime", times(0)) + numbered(scan(1), "ContentTime", times(100)),
        [("ContentTime: 1 of 2", 40), ("ContentTime: 2 of 2", 40)],
    ),
    "nothing but numbers": (
        numbered(scan(), "InstanceNumber", list(range(1, 41)))
        + numbered(scan(1), "InstanceNumber", list(range(41, 81))),
        [("InstanceNumber: 1 of 2", 40), ("InstanceNumber: 2 of 2", 40)],
    ),
}

WHOLE: dict[str, list[Dataset]] = {
    "one scan": scan(),
    "an acquisition number for each slice": numbered(scan(), "AcquisitionNumber", list(range(1, 41))),
    "two acquisitions on top of each other": numbered(scan(), "AcquisitionNumber", [1] * 20 + [2] * 20),
    "a time for each slice": numbered(scan(), "ContentTime", times(0)),
    # Step and shoot: each position of the table has its own.
    "trigger times": numbered(scan(), "TriggerTime", [str(i) for i in range(40)]),
    "interleaved in time, nothing tells them apart": (
        numbered(scan(), "InstanceNumber", list(range(1, 80, 2)))
        + numbered(scan(1), "InstanceNumber", list(range(2, 81, 2)))
    ),
    "no positions": scan(ImagePositionPatient=""),
}


@pytest.mark.parametrize(("datasets", "expected"), SPLIT.values(), ids=SPLIT.keys())
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_split(datasets: list[Dataset], expected: list[tuple[str, int]], seed: int | None) -> None:
    order = range(len(datasets)) if seed is None else np.random.default_rng(seed).permutation(len(datasets))
    assert found([datasets[i] for i in order]) == expected


@pytest.mark.parametrize("datasets", WHOLE.values(), ids=WHOLE.keys())
def test_whole(datasets: list[Dataset]) -> None:
    assert found(datasets) == [("", len(datasets))]


def test_parts_hold_the_images_of_one_scan() -> None:
    first, second = scan(0, AcquisitionNumber="1"), scan(1, AcquisitionNumber="2")
    mixed = [d for pair in zip(first, second, strict=True) for d in pair]
    [series] = group(ImageHeader(Path("in memory"), d) for d in mixed)
    for part, datasets in zip(parts.split(series), (first, second), strict=True):
        assert [h.dataset.SOPInstanceUID for h in part.headers] == [d.SOPInstanceUID for d in datasets]


def chosen(datasets: list[Dataset], folder: Path) -> Selection:
    headers, unreadable = read_headers(write(datasets, folder))
    assert not unreadable
    return select(group(headers))


def copy(dataset: Dataset, **changes: object) -> Dataset:
    other = deepcopy(dataset)
    for keyword, value in changes.items():
        setattr(other, keyword, value)
    return other


def test_identical_copies_are_left_out_and_flagged(tmp_path: Path) -> None:
    datasets = scan()
    copies = [copy(d, SOPInstanceUID=generate_uid(), InstanceNumber=100 + i) for i, d in enumerate(datasets[:7])]
    selection = chosen([*datasets, *copies, copy(datasets[9])], tmp_path)
    assert selection.chosen is not None
    assert len(selection.chosen.headers) == 40
    assert selection.chosen.part == ""
    [flag] = [f for f in selection.flags if f.code == "copies-left-out"]
    assert flag.text.startswith("8 duplicate images")


@pytest.mark.parametrize(
    "changes", [{"PixelData": b"\x01" * 24}, {"RescaleIntercept": "-1000"}, {"ImagePositionPatient": [-9, -20, -300]}]
)
def test_a_copy_that_differs_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    datasets = scan()
    other = copy(datasets[0], SOPInstanceUID=generate_uid(), InstanceNumber=datasets[0].InstanceNumber, **changes)
    selection = chosen([*datasets, other], tmp_path)
    assert selection.chosen is None
    assert "duplicate-positions" in {r.code for r in selection.rejected[0].reasons}


def test_one_uid_with_two_contents_is_refused(tmp_path: Path) -> None:
    datasets = scan()
    selection = chosen([*datasets, copy(datasets[0], PixelData=b"\x01" * 24)], tmp_path)
    assert {r.code for r in selection.rejected[0].reasons} == {"duplicate-instances", "duplicate-positions"}


def test_the_findings_say_which_part_and_inspiration_wins(tmp_path: Path) -> None:
    out = scan(0, AcquisitionNumber="1", ImageComments="EXSPIRATION")
    into = scan(1, AcquisitionNumber="2", ImageComments="INSPIRATION")
    selection = chosen([*out, *into], tmp_path)
    assert selection.chosen is not None
    assert selection.chosen.part == "AcquisitionNumber 2"
    [rejected] = selection.rejected
    assert (rejected.part, rejected.slices) == ("AcquisitionNumber 1", 40)
    assert [r.code for r in rejected.reasons] == ["another-series-preferred"]
    assert "AcquisitionNumber 2" in rejected.reasons[0].text
    assert [f.code for f in selection.flags if f.code == "part-of-series"] == ["part-of-series"]


def test_an_expiratory_scan_alone_is_taken_and_flagged(tmp_path: Path) -> None:
    selection = chosen(scan(ImageComments="Exspiration"), tmp_path)
    assert selection.chosen is not None
    assert "expiration" in {f.code for f in selection.flags}
