"""OHIF beside the example PACS, as `deploy/ohif` sets it up, and Chromium in front of it.

Every wait has an end: Chromium's own after `PATIENCE_S`.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.helpers import browser, prerequisites
from tests.helpers.browser import PATIENCE_S
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import ROOT
from tests.helpers.running import Orthanc, dicomnode
from tests.helpers.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

#: Chromium draws WebGL by its own software.
_DRAWING = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
_PANE = '[data-cy="viewport-pane"]'
_SERIES = '[data-cy^="study-browser-thumbnail"]'


@contextlib.contextmanager
def running(folder: Path, program: str) -> Iterator[Orthanc]:
    """An Orthanc of its own, which holds no other study."""
    (folder / "pacs").mkdir()
    pacs = Orthanc(folder / "pacs", program)
    try:
        yield pacs
    finally:
        pacs.stop()


@contextlib.contextmanager
def served(folder: Path, nginx: str, pacs_http: int, token: str = "") -> Iterator[str]:
    """OHIF's address: nginx with the shipped configuration, but on a port of its own and before this PACS.

    `token`: what it shows there, as a node's DICOMweb wants it.
    """
    prerequisites.viewer_folder()
    port = free_port()
    settings = (ROOT / "deploy" / "ohif" / "nginx.conf").read_text("utf-8")
    own = {"8043": str(port), "8042": str(pacs_http), "build/viewer/tmp": f"{folder}/tmp"}
    for shipped, instead in (own | {"build/viewer/nginx.pid": f"{folder}/nginx.pid"}).items():
        assert shipped in settings, shipped
        settings = settings.replace(shipped, instead)
    if token:
        host = "proxy_set_header Host $http_host;"
        assert host in settings
        settings = settings.replace(host, f'{host} proxy_set_header Authorization "Bearer {token}";')
    (folder / "nginx.conf").write_text(settings, "utf-8")
    # Started by root, its workers would be nobody's, and nobody may not read everybody's folders.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    command = [nginx, "-e", "stderr", "-p", str(ROOT), "-c", str(folder / "nginx.conf"), *user]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (folder / "nginx.log").read_text("utf-8")
        try:
            return "example PACS" in httpx.get(f"http://127.0.0.1:{port}/app-config.js").raise_for_status().text
        except httpx.TransportError:
            return False

    try:
        until("nginx answering", answers, 15)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextlib.contextmanager
def chromium(program: str) -> "Iterator[Page]":
    """An empty page of a Chromium that ends with the block. Raises MissingError as `browser.chromium`."""
    with browser.chromium(program, *_DRAWING) as started:
        context = started.new_context(viewport={"width": 1200, "height": 800})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        # The first start's round trip through the viewer lies over the images.
        context.add_init_script("localStorage.setItem('shownTours', '[\"basicViewerTour\"]')")
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        yield page


def delivered(images: Sequence[Path], folder: Path, pacs: Orthanc) -> Path:
    """Analyse these images, send them and their results to the PACS, by the command line; the folder of the results."""
    config, out = folder / "ae_config.toml", folder / "out"
    config.write_text('[analysis]\nbundle = ""\nradiomics = false\n[results]\nattenuation_maps = true\n')
    (folder / "in").mkdir()
    for path in images:
        (folder / "in" / path.name).symlink_to(path)
    for command in (
        ["analyze", folder / "in", "--out", out, "--config", config],
        ["send", f"{pacs.ae_title}@127.0.0.1:{pacs.port}", folder / "in", out],
    ):
        done = dicomnode(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    return out


class Viewer:
    """OHIF with one study, as a reader uses it: its list of series, a double click, a look at the pane."""

    def __init__(self, page: "Page", url: str, study_uid: str) -> None:
        self.page, self.url = page, url
        page.goto(f"{url}/viewer?StudyInstanceUIDs={study_uid}")
        page.get_by_text("Confirm and hide").first.click()

    def series(self, words: str) -> "Locator":
        """The entries of the list that hold these words."""
        return self.page.locator(_SERIES).filter(has_text=words)

    def listed(self) -> list[str]:
        """The text of every entry, from top to bottom."""
        return [entry.inner_text() for entry in self.page.locator(_SERIES).all()]

    def open(self, words: str) -> None:
        """Show a series in the pane."""
        self.series(words).first.dblclick()

    def image(self) -> str | None:
        """SOP Instance UID of the image in the pane."""
        shown = self._viewport("v.getCurrentImageId()")
        return None if shown is None else shown.split("/instances/")[1].split("/")[0]

    def scroll_to(self, sop_instance_uid: str) -> None:
        """Show this image of the series in the pane."""
        self._viewport(f"v.setImageIdIndex(v.getImageIds().findIndex(id => id.includes('/{sop_instance_uid}/')))")

    def pane(self) -> NDArray[np.int16]:
        """What the pane shows, shape (row, column, RGB)."""
        return _picture(self.page.locator(_PANE).first.screenshot())

    def sampled(self, shape: tuple[int, int]) -> NDArray[np.int16] | None:
        """What the pane shows at the centre of each pixel of the image in it, shape (row, column, RGB).

        None: it shows none of this shape, or not all of it.
        """
        corners = self._viewport(_CORNERS, list(shape))
        if corners is None:
            return None
        first, across, down = np.array(corners)
        row, column = (np.arange(n)[:, None] for n in shape)
        places = first + (column / shape[1] * (across - first))[None] + (row / shape[0] * (down - first))[:, None]
        x, y = np.moveaxis(np.floor(places).astype(int), -1, 0)
        seen = _picture(self.page.screenshot())
        x_within, y_within = np.clip(x, 0, seen.shape[1] - 1), np.clip(y, 0, seen.shape[0] - 1)
        # A pixel at the very rim may lie half outside.
        return None if max(abs(x - x_within).max(), abs(y - y_within).max()) > 1 else seen[y_within, x_within]

    def copied_text(self) -> str:
        """The text of the PDF in the pane as a reader takes it: select all, copy."""
        box = self.page.locator(_PANE).first.bounding_box()
        assert box is not None
        self.page.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 0.9 * box["height"])
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Control+c")
        copied: str = self.page.evaluate("(window.focus(), navigator.clipboard.readText())")
        return copied

    def _viewport(self, expression: str, argument: Any = None) -> Any:
        """What a JavaScript expression about cornerstone's viewport `v` gives; None as long as there is none."""
        return self.page.evaluate(
            f"async argument => {{ const v = {_VIEWPORT}; return v ? await {expression} : null }}", argument
        )


_VIEWPORT = "window.cornerstone?.getRenderingEngines()?.[0]?.getViewports()?.[0]"
#: Where the image's first pixel lies in the window, and those beyond the last of its first row and its first column.
_CORNERS = """(() => {
  const image = v.getImageData()?.imageData;
  const [columns, rows] = image?.getDimensions() ?? [];
  if (rows !== argument[0] || columns !== argument[1]) return null;
  const box = v.canvas.getBoundingClientRect();
  return [[0, 0], [columns, 0], [0, rows]].map(([i, j]) => {
    const [x, y] = v.worldToCanvas(image.indexToWorld([i, j, 0]));
    return [x + box.x, y + box.y];
  });
})()"""


def _picture(png: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(np.int16)
