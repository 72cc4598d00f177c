"""What OHIF shows of the demo's phantom, for the docs: `python -m tests.helpers.viewer_pictures OUT.jpg`."""

import sys
import tempfile
from functools import partial
from io import BytesIO
from pathlib import Path

import pydicom
from PIL import Image

from dicomnode.demo import study
from tests.helpers import prerequisites
from tests.helpers.viewer import PATIENCE_S, Viewer, chromium, delivered, running, served
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
        # What is seen of colours at least, as a share of the pane: none of the images, lines of page and paper.
        for words, colours in (("", 0.0), ("Lungs:", 0.1), ("Density:", 0.1), ("Summary:", 0.02), ("Report:", 0.0005)):
            if words:
                viewer.open(words)
            scrolls = words in ("", "Lungs:", "Density:")
            until(f"{words or 'the images'} in the pane", partial(_shown, viewer, middle if scrolls else "", colours))
            # The small pictures in the list follow a little later.
            page.wait_for_timeout(2000)
            taken.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
    return taken


def _shown(viewer: Viewer, sop_instance_uid: str, colours: float) -> bool:
    if sop_instance_uid:
        viewer.scroll_to(sop_instance_uid)
        if viewer.image() != sop_instance_uid:
            return False
    pane = viewer.pane()
    return float((pane.max(axis=-1) - pane.min(axis=-1) > 40).mean()) > colours


def main(out: Path) -> None:
    """Write them below one another, two in a row."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-viewer-") as folder:
        taken = [picture.resize(_SIZE, Image.Resampling.LANCZOS) for picture in pictures(Path(folder))]
    width, height = _SIZE
    sheet = Image.new("RGB", (2 * width + 6, (len(taken) + 1) // 2 * (height + 6) - 6), "white")
    for n, picture in enumerate(taken):
        sheet.paste(picture, (n % 2 * (width + 6), n // 2 * (height + 6)))
    sheet.save(out, quality=80, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.helpers.viewer_pictures OUT.jpg")
    main(Path(sys.argv[1]))
