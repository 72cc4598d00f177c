"""The slices of a study's page: where they are, which grey and which colours they have, and for whom."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.uid import generate_uid

from dicomnode.analysis.series.headers import Series, read_headers
from dicomnode.analysis.volume.load import load
from dicomnode.console import stacks
from dicomnode.console.stacks import ScrollStacks, SourceSlice
from dicomnode.dicomweb import files
from dicomnode.dicomweb import picture as drawing
from dicomnode.dicomweb.problems import busy
from dicomnode.operations import passwords
from dicomnode.reception.holdings import Held
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.results_folder import LABELS, SOURCES, results_folder
from tests.helpers.ct_files import concatenation, ct_series, enhanced, write
from tests.unit.console.conftest import PASSWORD, Browser, client
from tests.unit.dicomweb.conftest import Filled

SHAPE = (5, 8, 6)


@pytest.fixture
def logged_in(filled: Filled, app: Any) -> Iterator[Callable[[str], Browser]]:
    opened: list[httpx.Client] = []

    def make(role: str) -> Browser:
        filled.catalog.add_console_user(role, role, passwords.hashed(PASSWORD), 1.0)
        opened.append(client(app))
        browser = Browser(opened[-1])
        assert browser.log_in(role).status_code == 303
        return browser

    yield make
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def analysed(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study whose right lung is dense and whose left is emphysematous, with the labels of its analysis."""
    hu, labels = np.full(SHAPE, 40, np.int16), np.zeros(SHAPE, np.uint8)
    hu[1:4, 2:6, 0:3], hu[1:4, 2:6, 3:6] = -400, -980
    labels[1:4, 2:6, 0:3], labels[1:4, 2:6, 3:6] = 1, 2
    images = ct_series((hu + 1024).astype(np.int16), step_mm=1.4, PixelSpacing=["0.7", "0.7"])
    study = filled.receive(images, 900.0, tmp_path_factory.mktemp("analysed"))
    filled.settle(study, 910.0)
    folder = results_folder(filled.config.storage.results, study, 1)
    folder.mkdir(parents=True)
    np.savez_compressed(folder / LABELS, labels=labels)
    paths = {one.sop_instance_uid: one.path for one in filled.catalog.instances(study)}
    (folder / SOURCES).write_text(json.dumps([paths[str(one.SOPInstanceUID)] for one in images]))
    filled.catalog.set_state(study, 1, "analysed", None, now=920.0)
    return study


def picture(answer: httpx.Response) -> np.ndarray[Any, Any]:
    assert answer.status_code == 200, answer.status_code
    return np.asarray(Image.open(BytesIO(answer.content)))


def test_slices_scroll_with_what_lies_over_them(
    analysed: str, filled: Filled, logged_in: Callable[[str], Browser]
) -> None:
    browser, key = logged_in("reader"), filled.site.keys.key(analysed)
    found = browser.get(f"/study/{key}/slices").json()
    assert (len(found["axial"]), found["coronal"], found["sides"]) == (5, 8, "RL")
    assert picture(browser.get(found["axial"][0])).shape[:2] == (512, 384)
    assert picture(browser.get(found["axial"][2])).mean() < picture(browser.get(found["axial"][0])).mean()
    over = f"{found['layers']}"
    areas = picture(browser.get(f"{over}/axial/areas/3"))
    assert areas[3, 1].tolist() == [213, 94, 0, 120] and areas[3, 4].tolist() == [0, 114, 178, 120]
    assert not areas[0].any() and not picture(browser.get(f"{over}/axial/areas/1")).any()
    outline = picture(browser.get(f"{over}/axial/outline/3"))
    assert outline[4, 2].tolist() == [230, 159, 0, 255] and not outline[8, 2].any()
    # 5 slices 1.4 mm apart with pixels of 0.7 mm: 9 rows, the head first.
    coronal = picture(browser.get(f"{over}/coronal/image/4"))
    assert coronal.shape == (9, 6) and coronal[0, 0] == 236 and coronal[4, 1] < coronal[0, 1]
    assert coronal[4, 4] < coronal[4, 1] < coronal[0, 1] and coronal[4, 1] < coronal[1, 1] < coronal[0, 1]
    assert picture(browser.get(f"{over}/coronal/areas/4"))[4, 1].tolist() == [213, 94, 0, 120]
    for wrong in (
        "coronal/image/9",
        "coronal/image/0",
        "axial/image/1",
        "axial/areas/x",
        "sagittal/areas/1",
        "axial/y/1",
    ):
        assert browser.get(f"{over}/{wrong}").status_code == 404
    # The look is the page's; the axial images are told as any by DICOMweb.
    assert any("reader (DICOMweb)" in one.xml for one in filled.catalog.audit_waiting(10_000))


def test_a_study_without_labels_has_no_slices(study: str, filled: Filled, logged_in: Callable[[str], Browser]) -> None:
    browser, key = logged_in("operator"), filled.site.keys.key(study)
    assert browser.get(f"/study/{key}/slices").json()["axial"] == []
    assert browser.get(f"/study/{key}/slice/coronal/image/1").status_code == 404


def test_a_researcher_sees_no_image(analysed: str, filled: Filled, logged_in: Callable[[str], Browser]) -> None:
    browser, key = logged_in("researcher"), filled.site.keys.key(analysed)
    for path in (f"/study/{key}/slices", f"/study/{key}/slice/coronal/image/1", "/dicom-web/studies"):
        assert browser.get(path).status_code == 403
    assert browser.get(f"/dicom-web/studies/{analysed}/metadata").status_code == 403


def test_what_is_kept_is_not_shown_of_a_study_that_has_become_doubtful(
    analysed: str, filled: Filled, logged_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, key = logged_in("reader"), filled.site.keys.key(analysed)
    where = f"/study/{key}/slice/axial/areas/3"
    assert browser.get(where).status_code == 200
    monkeypatch.setattr(Catalog, "held_studies", lambda *_: [])
    assert browser.get(where).status_code == 404


def test_a_study_that_is_read_for_its_slices_holds_up_nobody_who_draws(
    analysed: str, filled: Filled, logged_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, key = logged_in("reader"), filled.site.keys.key(analysed)
    free: list[int] = []
    monkeypatch.setattr(ScrollStacks, "stack", lambda *_: free.append(drawing._turn._value))
    monkeypatch.setattr(stacks, "drawn", lambda *_: b"")
    assert browser.get(f"/study/{key}/slice/axial/areas/3").status_code == 200
    assert free == [drawing._AT_ONCE]

    def turn() -> None:
        raise busy()

    monkeypatch.setattr(drawing, "turn", turn)
    assert browser.get(f"/study/{key}/slice/axial/areas/3").status_code == 503


def test_labels_of_other_images_are_not_drawn(
    analysed: str, filled: Filled, logged_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = files.whole

    def reading(one: Held) -> Dataset:
        read.append(one.sop_instance_uid)
        return whole(one)

    monkeypatch.setattr(files, "whole", reading)
    folder: Path = results_folder(filled.config.storage.results, analysed, 1)
    np.savez_compressed(folder / LABELS, labels=np.zeros((5, 9, 9), np.uint8))
    filled.site.stacks._kept.clear()
    browser, key = logged_in("administrator"), filled.site.keys.key(analysed)
    for _ in range(3):
        assert browser.get(f"/study/{key}/slice/axial/areas/3").status_code == 404
    assert len(read) == 1  # to find out, all images are read: once


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [((1, 0, 0, 0, 1, 0), "RL"), ((-1, 0, 0, 0, 1, 0), "LR"), ((1, 0, 0, 0, -1, 0), "RL"), ((0, 1, 0, 1, 0, 0), "")],
)
def test_the_sides_are_the_patients_however_an_image_is_stored(
    tmp_path: Path, orientation: tuple[float, ...], expected: str
) -> None:
    (path, *_) = write(ct_series(np.zeros((1, 4, 6), np.int16), orientation=orientation), tmp_path)
    assert stacks.sides(SourceSlice(Held("1.2", "1.3", "1.4", "1.5", "CT", path))) == expected


def frames_in_files(images: list[Dataset]) -> list[Dataset]:
    """Of three files, the frames of each from head to feet, the files in no order."""
    return concatenation(images[::-1], 2)


def converted(images: list[Dataset]) -> list[Dataset]:
    for number, one in enumerate(images):
        one.ImageType, one.AcquisitionNumber, one.StudyID = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, "1"
        one.AccessionNumber, one.StudyDate, one.StudyTime = "", "20260101", f"10{number:04}"
        one.Manufacturer, one.PatientName, one.ContentDate, one.ContentTime = "M", "N^N", "20260101", "100000"
    return [hd.legacy.LegacyConvertedEnhancedCTImage(images, generate_uid(), 7, generate_uid(), 1)]


@pytest.mark.parametrize("made", [lambda images: [enhanced(images[::-1])], frames_in_files, converted])
def test_frames_of_enhanced_images_scroll_as_the_analysis_stacked_them(
    made: Callable[[list[Dataset]], list[Dataset]],
    filled: Filled,
    logged_in: Callable[[str], Browser],
    tmp_path: Path,
) -> None:
    hu, labels = np.full(SHAPE, 40, np.int16), np.zeros(SHAPE, np.uint8)
    for number in range(5):
        hu[number] = -1000 + 150 * number  # the feet are the darkest
    labels[1, 2:6, 0:3], hu[1, 2:6, 0:3] = 1, -400
    images = made(ct_series((hu + 1024).astype(np.int16), step_mm=1.4, PixelSpacing=["0.7", "0.7"]))
    study = filled.receive(images, 1000.0, tmp_path)
    filled.settle(study, 1010.0)
    paths = [Path(one.path) for one in filled.catalog.instances(study)]
    headers, _ = read_headers(paths)
    volume = load(Series(str(images[0].SeriesInstanceUID), study, "CT", tuple(headers)))
    assert len(volume.frames) == 5 and volume.hu[0].max() < volume.hu[4].max()
    folder = results_folder(filled.config.storage.results, study, 1)
    folder.mkdir(parents=True)
    np.savez_compressed(folder / LABELS, labels=volume.to_source(labels))
    (folder / SOURCES).write_text(json.dumps([str(one) for one in volume.paths]))
    filled.catalog.set_state(study, 1, "analysed", None, now=1020.0)
    browser = logged_in("reader")
    found = browser.get(f"/study/{filled.site.keys.key(study)}/slices").json()
    assert (len(found["axial"]), found["coronal"], found["sides"]) == (5, 8, "RL")
    grey = [picture(browser.get(url))[0, 0].max() for url in found["axial"]]
    assert grey == sorted(grey, reverse=True) and len(set(grey)) == 5, "head first"
    areas = [picture(browser.get(f"{found['layers']}/axial/areas/{n}")) for n in range(1, 6)]
    assert [bool(one[3, 1].any()) for one in areas] == [False, False, False, True, False]
    coronal = picture(browser.get(f"{found['layers']}/coronal/image/1"))
    assert coronal.shape == (9, 6) and (np.diff(coronal[:, 5].astype(int)) <= 0).all()
    # Labels of other frames than there are: none is shown.
    np.savez_compressed(folder / LABELS, labels=labels[:4])
    assert browser.get(f"/study/{filled.site.keys.key(study)}/slices").json()["axial"] == []
