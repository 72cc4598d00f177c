"""Pictures: which grey a value has, how large they are, and what is no picture."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from dicomnode.dicomweb import files, rendered, retrieve
from dicomnode.dicomweb.media import accepted
from dicomnode.dicomweb.picture import PNG, Rendering, draw
from dicomnode.dicomweb.problems import WebError
from dicomnode.reception.holdings import Held
from tests.helpers.ct_files import ct_series, write
from tests.unit.dicomweb.conftest import Filled, bits, parts
from tests.unit.dicomweb.test_retrieve import OCTETS, url


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(BytesIO(answer.content))


def test_grey_is_the_windows_of_ps3_3(web: httpx.Client, filled: Filled, study: str) -> None:
    image = filled.studies[study][0]
    hu = image.pixel_array.astype(float) - 1024
    where = f"{url(image)}/rendered?window=-600,1500,LINEAR"
    shown = np.asarray(
        picture(web.get(where, headers={"Accept": "image/png"})).resize((6, 8), Image.Resampling.NEAREST)
    )
    expected = np.clip(((hu - (-600.5)) / 1499 + 0.5) * 255, 0, 255)
    # Rows are 0.8 mm apart and columns 0.7: the picture is as tall as the patient is.
    assert picture(web.get(where, headers={"Accept": "image/png"})).size == (6, 9)
    assert np.abs(shown[0].astype(float) - expected[0]).max() <= 60
    exact = web.get(f"{where}&viewport=6,8,0,0,6,7", headers={"Accept": "image/png"})
    assert np.abs(np.asarray(picture(exact))[0].astype(float) - expected[0]).max() <= 1


def test_a_segmentation_and_its_frames(web: httpx.Client, study: str) -> None:
    where = f"/dicom-web/studies/{study}/series/1.2.826.8.1/instances/1.2.826.9.1"
    frame = picture(web.get(f"{where}/frames/2/rendered", headers={"Accept": "image/png"}))
    assert np.array_equal(np.asarray(frame), bits()[1] * 255)
    all_frames = web.get(f"{where}/rendered", headers={"Accept": 'multipart/related; type="image/png"'})
    assert len(parts(all_frames)) == 3
    assert web.get(f"{where}/rendered", headers={"Accept": "image/jpeg"}).status_code == 406
    assert picture(web.get(f"{where}/thumbnail?viewport=50,50")).size == (50, 33)


def test_sizes_qualities_and_kinds(web: httpx.Client, filled: Filled, study: str) -> None:
    where = f"{url(filled.studies[study][0])}/rendered"
    assert web.get(where).headers["content-type"] == "image/jpeg"
    assert picture(web.get(f"{where}?viewport=60,60")).size == (39, 60)
    large, small = (len(web.get(f"{where}?viewport=400,400&quality={q}").content) for q in (100, 5))
    assert small < large
    flipped = web.get(f"{where}?viewport=6,9,0,0,-6,8", headers={"Accept": "image/png"})
    plain = web.get(f"{where}?viewport=6,9,0,0,6,8", headers={"Accept": "image/png"})
    assert np.array_equal(np.asarray(picture(flipped)), np.asarray(picture(plain))[:, ::-1])
    assert len(parts(web.get(f"/dicom-web/studies/{study}/rendered"))) == 6
    assert picture(web.get(f"/dicom-web/studies/{study}/thumbnail")).size[1] == 128


@pytest.mark.parametrize(
    "asked",
    ["window=1", "window=a,b", "window=1,0,linear", "window=1,2,cubic", "window=nan,1,linear", "viewport=0,5",
     "viewport=99999,5", "viewport=5", "viewport=5,5,x,0,1,1", "quality=0", "quality=101", "quality=x",
     "viewport=1e999,3"],
)  # fmt: skip
def test_odd_parameters_are_400(web: httpx.Client, filled: Filled, study: str, asked: str) -> None:
    assert web.get(f"{url(filled.studies[study][0])}/rendered?{asked}").status_code == 400


def test_a_report_is_a_page_and_a_document_itself(web: httpx.Client, study: str) -> None:
    where = f"/dicom-web/studies/{study}/series"
    page = web.get(f"{where}/1.2.826.8.2/instances/1.2.826.9.2/rendered")
    assert page.headers["content-type"].startswith("text/html")
    assert "Imaging &lt;Report&gt;" in page.text and "<b>Volume</b>: 4711 ml" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert web.get(f"{where}/1.2.826.8.3/instances/1.2.826.9.3/rendered").content.startswith(b"%PDF")
    assert web.get(page.request.url, headers={"Accept": "image/png"}).status_code == 406
    assert web.get(f"{where}/1.2.826.8.2/instances/1.2.826.9.2/thumbnail").status_code == 404


def test_frames_that_are_only_claimed_are_not_counted_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = ct_series(np.zeros((1, 4, 6), np.int16))
    image.compress(RLELossless, generate_instance_uid=False)
    image.NumberOfFrames = 2_000_000_000
    (path,) = write([image], tmp_path)
    held = Held("1.2", "1.3", "1.4", "1.5", "CT", path)
    answer = retrieve.bulk_data(held, "7FE00010", accepted([OCTETS]))
    assert answer.status_code == 200

    def numbers(*_: object) -> Iterator[int]:
        yield from range(1, rendered._MOST_FRAMES + 2)
        pytest.fail("more frames are counted than are given")

    monkeypatch.setattr(rendered, "_numbers", numbers)
    with pytest.raises(WebError, match="more than 2000 frames"):
        rendered.rendered([held], accepted([]), Rendering())


def test_what_takes_too_much_memory_is_not_drawn() -> None:
    (image,) = ct_series(np.zeros((1, 4, 6), np.int16))
    image.Rows = image.Columns = 20_000
    with pytest.raises(WebError, match="too large to be drawn") as refused:
        draw(image, 1, PNG, Rendering())
    assert refused.value.status == 406
    image.BitsAllocated = 64
    with pytest.raises(WebError, match="too large to be decoded"):
        files.frame(image, 1, raw=True)
