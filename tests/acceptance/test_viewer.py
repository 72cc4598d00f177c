"""OHIF in Chromium beside the example PACS: what a reader sees first, and what each object shows."""

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.acceptance.test_geometry import analyse, coarse
from tests.conftest import ROOT, absent
from tests.helpers import prerequisites
from tests.helpers.ct_files import write
from tests.helpers.running import Orthanc, free_port
from tests.helpers.waiting import until

DEPLOYED = ROOT / "deploy" / "ohif"
#: A wait of Chromium's, without a graphics card, ms.
PATIENCE = 60_000


@dataclass(frozen=True)
class Viewer:
    """OHIF's address, and the study that lies in the PACS behind it."""

    url: str
    study_uid: str


@pytest.fixture
def viewer(data: Path, orthanc: Orthanc, tmp_path: Path, peer: Callable[[str, str], str]) -> Iterator[Viewer]:
    """The shipped configuration on ports of its own, and a chest with its results."""
    nginx = peer("nginx", "nginx-light")
    try:
        ohif = prerequisites.viewer_folder()
    except prerequisites.MissingError as error:
        absent(str(error))
    images = coarse(data)
    write(images, tmp_path / "in")
    analyse(tmp_path / "in", tmp_path / "out")
    for path in [*(tmp_path / "in").iterdir(), *(tmp_path / "out").glob("*.dcm")]:
        orthanc.client.post("/instances", content=path.read_bytes()).raise_for_status()
    port, prefix = free_port(), tmp_path / "nginx"
    prefix.mkdir()
    (prefix / "ohif").symlink_to(ohif)
    settings = (DEPLOYED / "nginx.conf").read_text().replace("8043", str(port)).replace("8042", str(orthanc.http))
    (prefix / "nginx.conf").write_text(settings)
    process = subprocess.Popen([nginx, "-p", str(prefix), "-c", str(prefix / "nginx.conf")])
    try:
        until("nginx answering", lambda: _answers(f"http://127.0.0.1:{port}/app-config.js"))
        yield Viewer(f"http://127.0.0.1:{port}", str(images[0].StudyInstanceUID))
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return "example PACS" in httpx.get(url).text
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_the_images_open_first_and_the_results_lie_on_them(viewer: Viewer, peer: Callable[[str, str], str]) -> None:
    try:
        from playwright import sync_api
    except ImportError:
        absent("playwright is not installed: make install-test")
    arguments = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=peer("chromium", "chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{viewer.url}/viewer?StudyInstanceUIDs={viewer.study_uid}")
        for words in ("Skip all", "Confirm and hide"):
            page.get_by_text(words).first.click()
        of(page, "Measures:").wait_for()
        listed = [one.inner_text() for one in page.locator(THUMBNAIL).all()]
        assert listed[0].startswith("CT") and len(listed) == 6
        numbers = [int(re.search(r"S:(\d+)", one)[1]) for one in listed]  # type: ignore[index]
        assert min(numbers) == numbers[0] == 30026
        until("the CT, open", lambda: re.search(r"\(\d+/69\)", page.inner_text("body")) is not None, 60)

        of(page, "Lungs:").dblclick()
        page.get_by_role("button", name="Yes").click()
        page.mouse.move(700, 400)
        for _ in range(28):
            page.mouse.wheel(0, 100)
        until("lungs in their colours", lambda: min(len(orange(page)), len(blue(page))) > 2000, 120)
        assert orange(page)[:, 1].mean() < blue(page)[:, 1].mean(), "the patient's right is on the left"

        of(page, "Report:").dblclick()
        until("the PDF's paper", lambda: float((seen(page) > 250).all(axis=-1).mean()) > 0.2, 120)
        of(page, "Summary:").dblclick()
        until("the page's band", lambda: int(close(page, (140, 28, 19)).sum()) > 2000, 120)
        browser.close()


THUMBNAIL = '[data-cy^="study-browser-thumbnail"]'


def of(page: Any, words: str) -> Any:
    """The entry of a series in the list."""
    return page.locator(THUMBNAIL).filter(has_text=words)


def seen(page: Any) -> NDArray[np.uint8]:
    """The picture beside the list of series, shape (row, column, RGB)."""
    picture = np.asarray(Image.open(BytesIO(page.screenshot())).convert("RGB"))
    return picture[50:, 290:]


def close(page: Any, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (np.abs(seen(page).astype(int) - colour) < 12).all(axis=-1)
    return found


def orange(page: Any) -> NDArray[np.intp]:
    """Places that are coloured as the right lung is, over whatever lies below."""
    r, g, b = (seen(page)[..., k].astype(int) for k in range(3))
    return np.argwhere((r > g + 15) & (g > b + 25))


def blue(page: Any) -> NDArray[np.intp]:
    r, g, b = (seen(page)[..., k].astype(int) for k in range(3))
    return np.argwhere((b > g + 10) & (g > r + 25))
