"""A client of DICOMweb that others have written (dicomweb-client) before a running node: store, search, retrieve."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import Dataset

from dicomnode.operations import web_tokens
from tests.conftest import absent
from tests.faults.studies import make_study, study_uid
from tests.helpers import prerequisites, viewer
from tests.helpers.browser import PATIENCE_S
from tests.helpers.ports import free_port
from tests.helpers.running import Node
from tests.helpers.waiting import until
from tests.helpers.web import answers

SCAN = "chest_tiny_cip/ct-64Dicom"


@dataclass
class Served:
    """A node that has refused a study of too few slices, which came by STOW-RS; and who asks it."""

    node: Node
    port: int
    token: str
    client: DICOMwebClient
    images: dict[str, Dataset]
    stored: Dataset


@pytest.fixture(scope="module")
def served(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("dicomweb"), free_port()
    tables = f"""
[console]
enabled = true
dicomweb = true
port = {port}
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {free_port()}
refused_report = true
retry_first_s = 600
"""
    node = Node(folder / "node", tables, "radiomics = false\n", bundle="")
    token = web_tokens.add(node.config, "client", "reader", "CT_1", time.time())
    node.start()
    try:
        url = f"http://127.0.0.1:{port}"
        until("the console answers", lambda: answers(f"{url}/login"), 60)
        client = DICOMwebClient(f"{url}/dicom-web", headers={"Authorization": f"Bearer {token}"})
        images = [pydicom.dcmread(path) for path in make_study(data / SCAN, folder / "scan", "web", 30)]
        stored = client.store_instances(images)
        assert node.ended(study_uid("web")) == "refused"
        yield Served(node, port, token, client, {str(one.SOPInstanceUID): one for one in images}, stored)
    finally:
        node.stop()


def test_what_was_stored_is_named(served: Served) -> None:
    named = {str(item.ReferencedSOPInstanceUID) for item in served.stored.ReferencedSOPSequence}
    assert named == set(served.images)
    assert "FailedSOPSequence" not in served.stored


def test_it_finds_the_study_its_series_and_its_images(served: Served) -> None:
    (found,) = served.client.search_for_studies(search_filters={"PatientID": "TEST-web"})
    study = Dataset.from_json(found)
    assert study.StudyInstanceUID == study_uid("web")
    assert set(study.ModalitiesInStudy) > {"CT"} and study.NumberOfStudyRelatedInstances > len(served.images)
    assert served.client.search_for_studies(search_filters={"PatientID": "NOBODY"}) == []
    (series,) = served.client.search_for_series(study.StudyInstanceUID, search_filters={"Modality": "CT"})
    uid = Dataset.from_json(series).SeriesInstanceUID
    images = served.client.search_for_instances(study.StudyInstanceUID, uid)
    assert {Dataset.from_json(one).SOPInstanceUID for one in images} == set(served.images)
    paged = served.client.search_for_instances(study.StudyInstanceUID, uid, limit=2, offset=1)
    assert len(paged) == 2


def test_it_retrieves_what_was_sent(served: Served) -> None:
    first = next(iter(served.images.values()))
    names = (str(first.StudyInstanceUID), str(first.SeriesInstanceUID))
    for image in served.client.retrieve_series(*names):
        assert image == served.images[image.SOPInstanceUID]
    whole = served.client.retrieve_study(names[0])
    assert {one.Modality for one in whole} > {"CT"}
    metadata = served.client.retrieve_series_metadata(*names)
    assert {Dataset.from_json(one, lambda *_: b"").SOPInstanceUID for one in metadata} == set(served.images)
    (frame,) = served.client.retrieve_instance_frames(*names, str(first.SOPInstanceUID), [1])
    assert frame == first.PixelData
    (pixels,) = served.client.retrieve_bulkdata(metadata[0]["7FE00010"]["BulkDataURI"])
    assert pixels == served.images[metadata[0]["00080018"]["Value"][0]].PixelData


def test_it_is_given_a_picture(served: Served) -> None:
    first = next(iter(served.images.values()))
    names = (str(first.StudyInstanceUID), str(first.SeriesInstanceUID), str(first.SOPInstanceUID))
    window = {"window": "-600,1500,LINEAR"}
    content = served.client.retrieve_instance_rendered(*names, media_types=("image/png",), params=window)
    shown = np.asarray(Image.open(io.BytesIO(content))).astype(float)
    hu = first.pixel_array * float(first.RescaleSlope) + float(first.RescaleIntercept)
    assert shown.shape == hu.shape
    assert np.abs(shown - np.clip(((hu + 600.5) / 1499 + 0.5) * 255, 0, 255)).max() <= 1


def test_a_log_names_no_search_and_no_token(served: Served) -> None:
    served.client.search_for_studies(search_filters={"PatientName": "Nobody^Never"})
    assert "Nobody" not in served.node.log() and "PatientName" not in served.node.log()
    assert served.token not in served.node.log() and "Traceback" not in served.node.log()


def test_a_token_that_was_taken_back_opens_nothing(served: Served) -> None:
    token = web_tokens.add(served.node.config, "short", "reader", "", time.time())
    url, headers = f"{served.client.base_url}/studies", {"Authorization": f"Bearer {token}"}
    assert httpx.get(url, headers=headers).status_code == 200
    assert served.node.cli("console", "token", "remove", "short").returncode == 0
    assert httpx.get(url, headers=headers).status_code == 401


def test_ohif_opens_the_study_from_the_node(served: Served, peer: Callable[[str, str], str], tmp_path: Path) -> None:
    nginx, browser = peer("nginx", "nginx-light"), peer("chromium", "chromium")
    try:
        prerequisites.viewer_folder()
        with (
            viewer.chromium(browser) as page,
            viewer.served(tmp_path, nginx, served.port, served.token) as url,
        ):
            answers: list[tuple[int, str]] = []
            page.on("response", lambda one: answers.append((one.status, one.url)) if "/dicom-web/" in one.url else None)
            opened = viewer.Viewer(page, url, study_uid("web"))
            shown = until("an image in the pane", opened.image, 3 * PATIENCE_S)
            assert shown in served.images
            until("the results listed beside it", lambda: len(opened.listed()) > 1, 3 * PATIENCE_S)
            assert answers and not [one for one in answers if one[0] >= 400]
    except prerequisites.MissingError as error:
        absent(str(error))
