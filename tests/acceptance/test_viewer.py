"""OHIF in Chromium beside the example PACS: what opens first, and what a reader sees of each result of a real chest."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import httpx
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from tests.conftest import absent
from tests.helpers import prerequisites
from tests.helpers.browser import PATIENCE_S
from tests.helpers.viewer import Viewer, chromium, delivered, running, served
from tests.helpers.waiting import until

#: As `until` counts, which is patient itself.
SOON_S = PATIENCE_S / 4


@dataclass(frozen=True)
class Opened:
    """OHIF with the study open. `first`: the image that it showed by itself; `asked`: all addresses that it went to."""

    viewer: Viewer
    images: dict[str, Dataset]
    results: Path
    first: str
    asked: list[str]


@pytest.fixture(scope="module")
def opened(data: Path, tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str, str], str]) -> Iterator[Opened]:
    """A chest and its results in an Orthanc by the command line, opened in the shipped configuration of OHIF."""
    folder = tmp_path_factory.mktemp("viewer")
    nginx, browser, orthanc = peer("nginx", "nginx-light"), peer("chromium", "chromium"), peer("Orthanc", "orthanc")
    try:
        prerequisites.viewer_folder()
        paths = prerequisites.dicom_files("chest_lidc0314_every4th")
        with chromium(browser) as page, running(folder, orthanc) as pacs, served(folder, nginx, pacs.http) as url:
            results = delivered(paths, folder, pacs)
            images = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, paths)}
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            viewer = Viewer(page, url, str(next(iter(images.values())).StudyInstanceUID))
            yield Opened(viewer, images, results, until("an image in the pane", viewer.image, SOON_S), asked)
    except prerequisites.MissingError as error:
        absent(str(error))


def test_the_images_open_first(opened: Opened) -> None:
    assert opened.first in opened.images
    until("all objects listed", lambda: opened.viewer.series("Measures:").count() == 1, SOON_S)
    listed = [entry.split("\n")[0] for entry in opened.viewer.listed()]
    assert listed[0] == "CT" and sorted(listed[1:]) == ["DOC", "OT", "SEG", "SEG", "SR"]


def test_the_lungs_lie_in_their_colours_where_the_segmentation_has_them(opened: Opened) -> None:
    segmentation = hd.seg.segread(opened.results / "seg.dcm")
    frames = {uid: _segments(segmentation, uid) for uid in sorted(opened.images)[::8]}
    # The slice, of some, that shows most of the smaller of both lungs.
    uid = max(frames, key=lambda uid: min(int((frames[uid] == segment).sum()) for segment in (1, 2)))
    right, left = frames[uid] == 1, frames[uid] == 2
    assert min(right.sum(), left.sum()) > 5000
    within = (slice(32, -32), slice(32, -32))
    opened.viewer.open("Lungs:")

    def agreement() -> float:
        opened.viewer.scroll_to(uid)
        shown = opened.viewer.sampled(right.shape)
        if shown is None or opened.viewer.image() != uid:
            return 0.0
        # The images are grey, but for the pane's frame. The right lung's colour is an orange, the left lung's a blue.
        warmth = (shown[..., 0] - shown[..., 2])[within]
        return min(dice(warmth > 40, right[within]), dice(warmth < -40, left[within]))

    until("both lungs in their colours and places", lambda: agreement() > 0.97, SOON_S)


def _segments(segmentation: Any, uid: str) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = segmentation.get_pixels_by_source_instance(
        [uid], combine_segments=True, assert_missing_frames_are_empty=True
    )[0]
    return labels


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def test_the_pdf_opens_and_its_words_can_be_read(opened: Opened) -> None:
    findings = json.loads((opened.results / "findings.json").read_text("utf-8"))
    opened.viewer.open("Report:")
    until("white paper", lambda: float((opened.viewer.pane() > 250).all(axis=-1).mean()) > 0.2, SOON_S)
    text = until("words on the paper", opened.viewer.copied_text, SOON_S)
    assert "Chest CT: lung measurements and mortality risk" in text
    assert "RESEARCH USE ONLY" in text
    volumes = {str(round(findings["quantities"][part]["volume_ml"])) for part in ("lungs", "right", "left")}
    assert volumes <= set(text.split()), text


def test_the_page_is_shown_whole_and_in_colour(opened: Opened) -> None:
    page = pydicom.dcmread(opened.results / "summary.dcm")
    opened.viewer.open("Summary:")

    def likeness() -> float:
        if opened.viewer.image() != page.SOPInstanceUID:
            return 0.0
        shown = opened.viewer.sampled(page.pixel_array.shape[:2])
        return 0.0 if shown is None else float(np.corrcoef(small(shown), small(page.pixel_array))[0, 1])

    until("the page in the pane", lambda: likeness() > 0.9, SOON_S)
    assert opened.viewer.page.get_by_text("FPS").count() == 0, "controls of a film cover the page's title"


def small(picture: NDArray[Any]) -> NDArray[np.float64]:
    """The picture's colours without its details, which differ with the size at which it is shown."""
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((64, 64), Image.Resampling.BOX), float).ravel()


def test_the_viewer_asks_nobody_but_the_machine_that_serves_it(opened: Opened) -> None:
    own = (opened.viewer.url, "blob:", "data:", "chrome:", "chrome-extension:")
    assert opened.asked
    assert not [address for address in opened.asked if not address.startswith(own)]


def test_the_pacs_is_open_to_readers_at_this_machine_alone(opened: Opened) -> None:
    studies = f"{opened.viewer.url}/dicom-web/studies"
    read = httpx.get(studies)
    assert read.status_code == 200 and len(read.json()) == 1
    assert "default-src 'self'" in read.headers["Content-Security-Policy"]
    assert httpx.post(studies, content=b"").status_code == 403
    # The name of a page elsewhere, made to lead to 127.0.0.1.
    assert httpx.get(studies, headers={"Host": "elsewhere.example"}).status_code == 421
