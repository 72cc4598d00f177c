"""WADO-RS: objects, headers, frames and values, as the client accepts them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from dicomnode.dicomweb.media import accepted
from tests.unit.dicomweb.conftest import Filled, bits, chest, parts, read

DICOM = 'multipart/related; type="application/dicom"'
OCTETS = 'multipart/related; type="application/octet-stream"'


def url(dataset: Dataset) -> str:
    d = dataset
    return f"/dicom-web/studies/{d.StudyInstanceUID}/series/{d.SeriesInstanceUID}/instances/{d.SOPInstanceUID}"


def test_a_study_comes_whole_with_its_results_byte_for_byte(web: httpx.Client, filled: Filled, study: str) -> None:
    answer = web.get(f"/dicom-web/studies/{study}", headers={"Accept": f"{DICOM}; transfer-syntax=*"})
    assert answer.status_code == 200
    found = parts(answer)
    assert {kind for kind, _ in found} == {f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"}
    assert {read(content).Modality for _, content in found} == {"CT", "SEG", "SR", "DOC"}
    stored = {p.read_bytes() for p in filled.config.storage.spool.rglob(f"{study}/*/*.dcm")}
    assert stored <= {content for _, content in found}


def test_one_series_one_instance_and_one_alone(web: httpx.Client, filled: Filled, study: str) -> None:
    image = filled.studies[study][1]
    series = url(image).rpartition("/instances")[0]
    assert len(parts(web.get(series, headers={"Accept": DICOM}))) == 3
    assert len(parts(web.get(url(image), headers={"Accept": DICOM}))) == 1
    alone = web.get(url(image), headers={"Accept": "application/dicom"})
    assert read(alone.content).SOPInstanceUID == image.SOPInstanceUID
    assert web.get(series, headers={"Accept": "application/dicom"}).status_code == 406


def test_what_is_stored_otherwise_is_decoded_where_that_is_asked_for(web: httpx.Client, filled: Filled) -> None:
    image = list(filled.studies.values())[1][0]
    assert image.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    for accept, syntax in (
        (DICOM, ExplicitVRLittleEndian),  # the default (PS3.18 8.7.3.5.2)
        (f"{DICOM}; transfer-syntax=*", ImplicitVRLittleEndian),
        (f"{DICOM}; transfer-syntax={ImplicitVRLittleEndian}", ImplicitVRLittleEndian),
        ("*/*", ImplicitVRLittleEndian),
    ):
        ((kind, content),) = parts(web.get(url(image), headers={"Accept": accept}))
        assert kind.endswith(syntax) and read(content).file_meta.TransferSyntaxUID == syntax
        assert read(content).PixelData == image.PixelData
    for accept in (f"{DICOM}; transfer-syntax={JPEGLSLossless}", "image/gif", 'multipart/related; type="text/html"'):
        assert web.get(url(image), headers={"Accept": accept}).status_code == 406


@pytest.fixture(scope="module")
def compressed(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    (image,) = chest("P-9", "Packed^Paul", "20200101", "A-9", slices=1)
    image.compress(JPEGLSLossless, generate_instance_uid=False)
    filled.settle(filled.receive([image], 50.0, tmp_path_factory.mktemp("compressed")), 60.0)
    return image


def test_a_compressed_image_as_it_is_and_decoded(web: httpx.Client, compressed: Dataset) -> None:
    (plain,) = chest("P-9", "Packed^Paul", "20200101", "A-9", slices=1)
    ((_, content),) = parts(web.get(url(compressed), headers={"Accept": DICOM}))
    assert read(content).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert np.array_equal(read(content).pixel_array, plain.pixel_array)
    assert read(content).SOPInstanceUID == compressed.SOPInstanceUID
    frame = f"{url(compressed)}/frames/1"
    ((kind, decoded),) = parts(web.get(frame, headers={"Accept": OCTETS}))
    assert decoded == plain.PixelData and kind == f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    ((kind, packed),) = parts(web.get(frame, headers={"Accept": f"{OCTETS}; transfer-syntax=*"}))
    assert kind == f"image/jls; transfer-syntax={JPEGLSLossless}" and packed[:2] == b"\xff\xd8"
    assert len(parts(web.get(frame, headers={"Accept": 'multipart/related; type="image/jls"'}))) == 1
    assert web.get(frame, headers={"Accept": 'multipart/related; type="image/jp2"'}).status_code == 406


def test_frames_of_a_segmentation_are_its_bits(web: httpx.Client, study: str) -> None:
    where = f"/dicom-web/studies/{study}/series/1.2.826.8.1/instances/1.2.826.9.1/frames"
    found = parts(web.get(f"{where}/1,3", headers={"Accept": OCTETS}))
    assert [content for _, content in found] == [np.packbits(bits()[n], bitorder="little").tobytes() for n in (0, 2)]
    for wrong, status in (("4", 404), ("0", 404), ("1,x", 400), ("-1", 400), ("1," * 3000, 400)):
        assert web.get(f"{where}/{wrong}", headers={"Accept": OCTETS}).status_code == status


def test_metadata_name_what_is_long_by_a_uri_that_answers(web: httpx.Client, filled: Filled, study: str) -> None:
    answer = web.get(f"/dicom-web/studies/{study}/metadata", headers={"Accept": "application/dicom+json"})
    found: dict[str, Any] = {one["00080060"]["Value"][0]: one for one in answer.json()}
    assert set(found) == {"CT", "SEG", "SR", "DOC"}
    ct = found["CT"]
    assert ct["00080005"]["Value"] == ["ISO_IR 192"] and "00020010" not in ct
    assert ct["00100010"]["Value"] == [{"Alphabetic": "Ärmel^Änne"}]
    images = {image.SOPInstanceUID: image for image in filled.studies[study]}
    ((_, pixels),) = parts(web.get(ct["7FE00010"]["BulkDataURI"], headers={"Accept": OCTETS}))
    assert pixels == images[ct["00080018"]["Value"][0]].PixelData
    pdf = found["DOC"]["00420011"]["BulkDataURI"]
    assert web.get(pdf).content.startswith(b"%PDF-1.7")
    assert web.get(pdf, headers={"Accept": "application/pdf"}).headers["content-type"] == "application/pdf"
    assert "7FE00010" not in found["SR"]
    assert found["SR"]["0040A730"]["Value"][0]["0040A730"]["Value"][0]["0040A300"]["Value"][0]["0040A30A"]["Value"] == [
        4711
    ]
    for wrong in ("00100010", "0040A730-5-00100010", "x", "7FE00010-0"):
        assert web.get(f"{url(images[ct['00080018']['Value'][0]])}/bulkdata/{wrong}").status_code == 404


def test_what_is_held_as_doubtful_is_not_there(web: httpx.Client, filled: Filled) -> None:
    held = list(filled.studies.values())[2][0]
    for path in (url(held), f"{url(held)}/metadata", f"{url(held)}/rendered", f"{url(held)}/frames/1"):
        assert web.get(path).status_code == 404
    assert web.get(f"/dicom-web/studies/{held.StudyInstanceUID}").status_code == 404


@pytest.mark.parametrize("uid", ["..", "%2e%2e", "1.2.3", "x" * 300, "1'--", "%00"])
def test_names_that_are_none_are_not_found(web: httpx.Client, uid: str) -> None:
    for path in (f"/dicom-web/studies/{uid}/metadata", f"/dicom-web/studies/1.2/series/{uid}/instances/{uid}/metadata"):
        assert web.get(path).status_code in (404, 405)


def test_a_file_that_is_cut_short_is_no_object(
    web: httpx.Client, filled: Filled, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (image,) = chest("P-8", "Cut^Carl", "20200102", "A-8", slices=1)
    filled.settle(filled.receive([image], 40.0, tmp_path_factory.mktemp("cut")), 45.0)
    held = filled.catalog.held_instance(str(image.SOPInstanceUID))
    assert held is not None
    with Path(held.path).open("r+b") as file:
        file.truncate(held.size - 20)
    assert web.get(f"{url(image)}/frames/1").status_code == 404
    assert web.get(f"{url(image)}/rendered").status_code == 404
    assert web.get(f"{url(image)}/metadata").status_code == 200


def test_preferences_are_heard() -> None:
    given = accepted(
        ['text/html;q=0.3, multipart/related; type="image/jls"; transfer-syntax=1.2;q=0.8', "*/*;q=0, a/b"]
    )
    assert [one.kind for one in given] == ["a/b", "image/jls", "text/html"]
    assert given[1].transfer_syntax == "1.2" and given[1].in_parts
    assert accepted([]) == accepted([""]) == accepted(["nonsense"])
    assert accepted(['x;y="' + "\\" * 5000]) and accepted([";" * 10_000])
    # Not in a time that grows exponentially: an hour for these forty.
    assert accepted(["a/b" + ";c=  " * 40 + '"'])


def test_each_look_at_a_study_is_noted_once_a_while(
    program: Callable[..., httpx.Client], filled: Filled, study: str
) -> None:
    web, before = program(), len(filled.catalog.audit_waiting(10_000))
    for _ in range(3):
        assert web.get(f"/dicom-web/studies/{study}/metadata").status_code == 200
    assert web.get("/dicom-web/studies?PatientID=P-1").status_code == 200
    new = [one.xml for one in filled.catalog.audit_waiting(10_000)[before:]]
    assert sum("110103" in one for one in new) == 1 and sum("110112" in one for one in new) == 1
    assert all(" (DICOMweb)" in one for one in new)


def test_results_that_are_called_back_are_not_there(web: httpx.Client, filled: Filled, study: str) -> None:
    where = f"/dicom-web/studies/{study}/series/1.2.826.8.1/metadata"
    assert web.get(where).status_code == 200
    filled.catalog.set_state(study, 1, "cancelled", "by a person", now=500.0)
    assert web.get(where).status_code == 404
    assert len(parts(web.get(f"/dicom-web/studies/{study}"))) == 3
