"""What OHIF shows of the demo's phantom, for the docs: `python -m tests.helpers.viewer_pictures OUT.jpg`."""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

import pydicom
from PIL import Image

from dicomnode.demo import study
from tests.helpers import prerequisites
from tests.helpers.running import Orthanc
from tests.helpers.viewer import PATIENCE_S, Viewer, chromium, delivered, served
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
    (folder / "pacs").mkdir()
    pacs = Orthanc(folder / "pacs", orthanc)
    try:
        delivered(images, folder, pacs)
        with served(folder, nginx, pacs.http) as url, chromium(browser) as page:
            viewer = Viewer(page, url, str(first.StudyInstanceUID))
            taken = []

            def take(what: str, colours: float) -> None:
                def drawn() -> bool:
                    if what in ("images", "Lungs:", "Density:"):
                        viewer.scroll_to(middle)
                    pane = viewer.pane()
                    return float((pane.max(axis=-1) - pane.min(axis=-1) > 40).mean()) > colours

                until(f"{what} in the pane", drawn, PATIENCE_S / 4)
                # What lies around the pane, the small pictures in the list say, follows a little later.
                page.wait_for_timeout(2000)
                taken.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))

            until("an image in the pane", viewer.image, PATIENCE_S / 4)
            take("images", 0)
            for words, colours in (("Lungs:", 0.1), ("Density:", 0.1), ("Summary:", 0.02), ("Report:", 0.0005)):
                viewer.open(words)
                take(words, colours)
            return taken
    finally:
        pacs.stop()


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
