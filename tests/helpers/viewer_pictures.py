"""What OHIF shows of the demo's phantom, for the docs: `python -m tests.helpers.viewer_pictures OUT.jpg`."""

import sys
import tempfile
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image

from dicomnode.demo import study
from tests.helpers import prerequisites
from tests.helpers.browser import PATIENCE_S
from tests.helpers.viewer import Viewer, chromium, delivered, running, served
from tests.helpers.waiting import until

_SIZE = (720, 480)


def pictures(folder: Path) -> list[Image.Image]:
    """The viewer's window: the images as they open, the lungs, the areas by attenuation, page and PDF."""
    programs = {"nginx": "nginx-light", "chromium": "chromium", "Orthanc": "orthanc"}
    prerequisites.check_or_exit(programs=list(programs.items()))
    nginx, browser, orthanc = (prerequisites.program(*pair) for pair in programs.items())
    images = [path for path in study.write(folder / "demo") if path.parent.name == "2-axial"]
    first = pydicom.dcmread(images[0], stop_before_pixels=True)
    middle = str(pydicom.dcmread(images[len(images) // 2], stop_before_pixels=True).SOPInstanceUID)
    taken: list[Image.Image] = []
    with (
        chromium(browser) as page,
        running(folder, orthanc) as pacs,
        served(folder, nginx, pacs.http) as url,
    ):
        delivered(images, folder, pacs)
        viewer = Viewer(page, url, str(first.StudyInstanceUID))
        until("an image in the pane", viewer.image, PATIENCE_S / 4)
        before = viewer.pane()
        for words in ("", "Lungs:", "Density:", "Summary:", "Report:"):
            if words:
                viewer.open(words)
            scrolled = middle if words in ("", "Lungs:", "Density:") else None
            until(f"{words or 'the images'} in the pane", partial(_shown, viewer, before, scrolled))
            before = viewer.pane()
            taken.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
    return taken


def _shown(viewer: Viewer, before: NDArray[np.int16], scroll_to: str | None) -> bool:
    """Whether the pane shows something else than before, and nothing moves in it any more."""
    if scroll_to is not None:
        viewer.scroll_to(scroll_to)
        if viewer.image() != scroll_to:
            return False
    pane = viewer.pane()
    # The small pictures in the list follow a little later than the pane.
    viewer.page.wait_for_timeout(3000)
    return float(np.abs(pane - before).mean()) > 1 and np.array_equal(pane, viewer.pane())


def main(out: Path) -> None:
    """Write them below one another, two in a row."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-viewer-") as folder:
        taken = [picture.resize(_SIZE, Image.Resampling.LANCZOS) for picture in pictures(Path(folder))]
    width, height = _SIZE
    sheet = Image.new("RGB", (2 * width + 6, (len(taken) + 1) // 2 * (height + 6) - 6), "white")
    for n, picture in enumerate(taken):
        sheet.paste(picture, (n % 2 * (width + 6), n // 2 * (height + 6)))
    sheet.save(out, quality=70, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.helpers.viewer_pictures OUT.jpg")
    main(Path(sys.argv[1]))
