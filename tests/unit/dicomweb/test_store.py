"""STOW-RS: what is kept, quarantined or refused, and what its sender is told; by the code of C-STORE."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.console.application import application
from dicomnode.console.site import ConsoleSite
from dicomnode.store.catalog.catalog import Catalog
from tests.unit.console.conftest import client
from tests.unit.dicomweb.conftest import Filled, chest

KIND = 'multipart/related; type="application/dicom"; boundary=b'
TOLD, FAILED, REASON, UID = "00081199", "00081198", "00081197", "00081155"


def content(dataset: Dataset) -> bytes:
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def body(*parts: bytes, kind: str = "application/dicom") -> bytes:
    heads = b"".join(b"--b\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + part + b"\r\n" for part in parts)
    return heads + b"--b--\r\n"


def post(web: httpx.Client, *parts: bytes, path: str = "/dicom-web/studies") -> httpx.Response:
    return web.post(path, content=body(*parts), headers={"Content-Type": KIND})


def told(answer: httpx.Response, sequence: str, tag: str) -> list[Any]:
    items = answer.json().get(sequence, {}).get("Value", [])
    return [one[tag].get("Value", [None])[0] for one in items]


@pytest.fixture
def sender(program: Callable[..., httpx.Client]) -> httpx.Client:
    return program(store_as="GATEWAY")


def quarantined(filled: Filled) -> int:
    return len(list(filled.config.storage.spool.glob("quarantine/*.dcm")))


def held(catalog: Catalog, dataset: Dataset) -> bool:
    return catalog.held_instance(str(dataset.SOPInstanceUID)) is not None


def test_objects_are_kept_as_by_c_store(sender: httpx.Client, filled: Filled) -> None:
    images = chest("P-5", "Stow^Sam", "20260401", "A-5")
    answer = post(sender, *map(content, images))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom+json"
    assert told(answer, TOLD, UID) == [str(one.SOPInstanceUID) for one in images]
    assert FAILED not in answer.json()
    study = str(images[0].StudyInstanceUID)
    row = filled.catalog.study(study)
    assert row is not None and (row.state, row.instances) == ("receiving", 3)
    (intake,) = [one for one in filled.catalog.unsettled(1e12) if one.study_uid == study]
    assert [one.closed for one in intake.bringers] == ["released"]
    found = sender.get(f"/dicom-web/studies/{study}/instances")
    assert len(found.json()) == 3
    # Again: the same, and no second copy.
    assert post(sender, content(images[0])).status_code == 200
    after = filled.catalog.study(study)
    assert after is not None and after.instances == 3


def test_what_is_refused_is_named_with_its_reason_and_kept_in_quarantine(sender: httpx.Client, filled: Filled) -> None:
    good, other = chest("P-6", "Some^Sue", "20260402", "A-6", slices=2)
    assert post(sender, content(good)).status_code == 200
    before = quarantined(filled)
    good.PatientComments = "changed"
    answer = post(sender, content(good), content(other), b"no DICOM at all", b"")
    assert answer.status_code == 202
    assert told(answer, TOLD, UID) == [str(other.SOPInstanceUID)]
    assert told(answer, FAILED, REASON) == [0xC001, 0xC000, 0xC000]
    assert told(answer, FAILED, UID) == [str(good.SOPInstanceUID), None, None]
    assert quarantined(filled) == before + 3
    assert post(sender, b"nothing else").status_code == 409


def test_a_study_in_the_path_is_the_only_one(sender: httpx.Client, filled: Filled) -> None:
    (image,) = chest("P-7", "Path^Pat", "20260403", "A-7", slices=1)
    answer = post(sender, content(image), path="/dicom-web/studies/1.2.3")
    assert answer.status_code == 409 and told(answer, FAILED, REASON) == [0xA900]
    assert not held(filled.catalog, image)
    assert post(sender, content(image), path=f"/dicom-web/studies/{image.StudyInstanceUID}").status_code == 200
    assert post(sender, content(image), path="/dicom-web/studies/x").status_code == 400


def test_names_within_and_without_have_to_agree(sender: httpx.Client, filled: Filled) -> None:
    (image,) = chest("P-7", "Path^Pat", "20260403", "A-7", slices=1)
    file = content(image).replace(str(image.SOPInstanceUID).encode(), b"1" * len(image.SOPInstanceUID), 1)
    assert told(post(sender, file), FAILED, REASON) == [0xA900]
    assert not held(filled.catalog, image)


def test_classes_and_syntaxes_that_are_not_taken(sender: httpx.Client, filled: Filled) -> None:
    (image,) = chest("P-7", "Path^Pat", "20260403", "A-7", slices=1)
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    verification = content(image).replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.1\0" + b"\0" * 8)
    assert told(post(sender, verification), FAILED, REASON) == [0x0122]
    other = content(image).replace(ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.9.9.9\0", 1)
    assert told(post(sender, other), FAILED, REASON) == [0xC122]
    assert not held(filled.catalog, image)


def test_a_body_that_breaks_off_is_400_and_what_was_whole_is_safe(sender: httpx.Client, filled: Filled) -> None:
    first, second = chest("P-10", "Break^Bob", "20260404", "A-10", slices=2)
    whole = body(content(first), content(second))
    answer = sender.post("/dicom-web/studies", content=whole[:-400], headers={"Content-Type": KIND})
    assert answer.status_code == 400 and "breaks off" in answer.text
    assert held(filled.catalog, first) and not held(filled.catalog, second)
    assert not list(filled.config.storage.spool.glob("incoming/*"))
    closed = filled.catalog.unsettled(1e12)
    assert ["aborted"] in [[b.closed for b in one.bringers] for one in closed]


@pytest.mark.parametrize(
    ("kind", "sent", "status"),
    [
        ("application/dicom", b"x", 415),
        ('multipart/related; type="application/dicom+json"; boundary=b', b"x", 415),
        ('multipart/related; type="application/dicom"', b"x", 400),
        (KIND, b"nonsense" * 2000, 400),
        (KIND, b"", 400),
        (KIND, b"--b--\r\n", 400),
        (KIND, body(b"x", kind="text/html"), 415),
    ],
)
def test_odd_bodies(sender: httpx.Client, kind: str, sent: bytes, status: int) -> None:
    assert sender.post("/dicom-web/studies", content=sent, headers={"Content-Type": kind}).status_code == status


def test_to_store_takes_a_token_with_a_caller(
    web: httpx.Client, program: Callable[..., httpx.Client], filled: Filled
) -> None:
    (image,) = chest("P-11", "No^Body", "20260405", "A-11", slices=1)
    assert post(web, content(image)).status_code == 403
    web.headers["Authorization"] = "Bearer nobody's"
    assert post(web, content(image)).status_code == 401
    del web.headers["Authorization"]
    assert post(web, content(image)).status_code == 401
    assert not held(filled.catalog, image)


def test_a_spool_that_cannot_be_used_closes_no_console(sender: httpx.Client, filled: Filled, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(b"")
    storage = filled.config.storage.model_copy(update={"spool": spool})
    site = ConsoleSite(filled.config.model_copy(update={"storage": storage}))
    headers = {"Authorization": sender.headers["Authorization"], "Content-Type": KIND}
    (image,) = chest("P-6", "Late^Lea", "20260402", "A-6", slices=1)
    with client(application(site)) as asking:
        assert asking.get("/login").status_code == 200
        assert asking.post("/dicom-web/studies", content=body(content(image)), headers=headers).status_code == 503
        spool.unlink()
        assert asking.post("/dicom-web/studies", content=body(content(image)), headers=headers).status_code == 200
    site.close()
