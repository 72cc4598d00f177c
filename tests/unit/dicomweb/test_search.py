"""QIDO-RS: what is found by which key, a page at a time, and what is never found."""

from typing import Any

import httpx
import pytest
from sqlalchemy import event

from dicomnode.store.catalog import web_holdings
from dicomnode.store.catalog.web_holdings import WebWanted
from tests.unit.dicomweb.conftest import Filled, chest


def values(answer: httpx.Response, tag: str) -> list[Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    return [one[tag].get("Value", [None])[0] for one in answer.json()]


def dates(answer: httpx.Response) -> list[str]:
    return values(answer, "00080020")


def test_studies_are_told_newest_first_and_never_one_that_is_held(web: httpx.Client) -> None:
    answer = web.get("/dicom-web/studies")
    assert dates(answer) == ["20260305", "20260203", "20260102"]
    first = answer.json()[-1]
    assert first["00100010"]["Value"] == [{"Alphabetic": "Ärmel^Änne"}]
    assert first["00080061"]["Value"] == ["CT", "DOC", "SEG", "SR"]
    assert (first["00201206"]["Value"], first["00201208"]["Value"]) == ([4], [6])
    assert first["00080056"]["Value"] == ["ONLINE"]
    assert first["00081190"]["Value"] == [f"http://127.0.0.1:8480/dicom-web/studies/{first['0020000D']['Value'][0]}"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("PatientID=P-1", ["20260305", "20260102"]),
        ("00100020=P-2", ["20260203"]),
        ("PatientID=P*", ["20260305", "20260203", "20260102"]),
        ("PatientName=bolt*", ["20260203"]),
        ("PatientName=%C3%A4rmel^*", ["20260305", "20260102"]),
        ("PatientName=Bolt^Be?", ["20260203"]),
        ("PatientName=*EN", ["20260203"]),
        ("PatientName=*o?t^*n*", ["20260203"]),
        ("PatientName=%C3%84RMEL^%C3%84NNE", ["20260305", "20260102"]),
        ("PatientID=*-2", ["20260203"]),
        ("PatientID=p*", []),
        ("AccessionNumber=*-1&PatientName=*a*,", []),
        ("PatientName=*nn*&AccessionNumber=*-1", ["20260102"]),
        ("StudyDescription=*Thorax", ["20260305", "20260203", "20260102"]),
        ("StudyDate=20260201-20260228", ["20260203"]),
        ("StudyDate=-20260131", ["20260102"]),
        ("StudyDate=20260203-", ["20260305", "20260203"]),
        ("StudyDate=20260102", ["20260102"]),
        ("StudyDate=20260102&StudyDate=20260203", ["20260203", "20260102"]),
        ("AccessionNumber=A-2", ["20260203"]),
        ("AccessionNumber=A-4", ["20260305"]),
        ("ModalitiesInStudy=SR", ["20260102"]),
        ("ModalitiesInStudy=SR,CT", ["20260305", "20260203", "20260102"]),
        ("StudyDescription=CT*&PatientID=P-2", ["20260203"]),
        ("PatientID=&StudyDate=20260203", ["20260203"]),
        ("limit=1", ["20260305"]),
        ("limit=1&offset=1", ["20260203"]),
    ],
)
def test_keys_of_studies(web: httpx.Client, asked: str, found: list[str]) -> None:
    answer = web.get(f"/dicom-web/studies?{asked}")
    assert dates(answer) == found if found else answer.status_code == 204


@pytest.mark.parametrize(
    "asked",
    ["PatientID=P-3", "PatientName=Doubt*", "ModalitiesInStudy=MR", "AccessionNumber=A-3", "StudyDate=19990101"],
)
def test_nothing_found_is_204(web: httpx.Client, asked: str) -> None:
    answer = web.get(f"/dicom-web/studies?{asked}")
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_list_of_uids(web: httpx.Client, filled: Filled) -> None:
    uids = list(filled.studies)
    assert dates(web.get(f"/dicom-web/studies?StudyInstanceUID={uids[0]},{uids[1]}")) == ["20260203", "20260102"]
    assert web.get(f"/dicom-web/studies?StudyInstanceUID={uids[2]}").status_code == 204


def test_a_page_that_is_cut_says_so_and_fuzziness_is_declined(web: httpx.Client) -> None:
    warning = web.get("/dicom-web/studies?limit=2&fuzzymatching=true").headers["warning"]
    assert "additional results" in warning and "fuzzymatching parameter is not supported" in warning
    assert "warning" not in web.get("/dicom-web/studies?limit=3").headers


def test_series_of_a_study_and_of_all(web: httpx.Client, study: str) -> None:
    answer = web.get(f"/dicom-web/studies/{study}/series")
    assert sorted(values(answer, "00080060")) == ["CT", "DOC", "SEG", "SR"]
    assert {one["00080060"]["Value"][0]: one["00201209"]["Value"][0] for one in answer.json()}["CT"] == 3
    assert values(web.get(f"/dicom-web/studies/{study}/series?Modality=SR"), "0020000E") == ["1.2.826.8.2"]
    everywhere = web.get("/dicom-web/series?Modality=CT&PatientID=P-2")
    assert values(everywhere, "00100020") == ["P-2"]
    uid = values(everywhere, "0020000E")[0]
    assert values(web.get(f"/dicom-web/series?SeriesInstanceUID={uid}"), "00100020") == ["P-2"]
    assert len(web.get("/dicom-web/series?limit=2&offset=1").json()) == 2


def test_instances_at_every_level(web: httpx.Client, study: str, filled: Filled) -> None:
    assert len(web.get(f"/dicom-web/studies/{study}/instances").json()) == 6
    image = filled.studies[study][0]
    of_series = web.get(f"/dicom-web/studies/{study}/series/{image.SeriesInstanceUID}/instances?InstanceNumber=1")
    assert values(of_series, "00080018") == [filled.studies[study][-1].SOPInstanceUID]
    assert values(of_series, "00280010") == [8]
    by_uid = web.get(f"/dicom-web/instances?SOPInstanceUID={image.SOPInstanceUID}")
    assert values(by_uid, "0020000D") == [study]
    by_class = web.get(f"/dicom-web/studies/{study}/instances?SOPClassUID=1.2.840.10008.5.1.4.1.1.66.4")
    assert values(by_class, "00080060") == ["SEG"]
    assert web.get(f"/dicom-web/studies/{study}/series/1.2.3/instances").status_code == 204


def test_included_fields(web: httpx.Client, study: str) -> None:
    where = f"/dicom-web/studies/{study}/instances?Modality=CT&limit=1"
    assert "00180050" not in web.get(where).json()[0]
    assert web.get(f"{where}&includefield=SliceThickness").json()[0]["00180050"]["Value"] == [5.0]
    assert web.get(f"{where}&includefield=00180050,00200037").json()[0]["00200037"]["Value"][0] == 1.0
    assert web.get(f"{where}&includefield=all").json()[0]["00181210"]["Value"] == ["B60f"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("Nonsense=1", "no attribute"),
        ("SliceThickness=5", "cannot be searched by"),
        ("Modality=CT", "cannot be searched by"),
        ("StudyDate=yesterday", "no date"),
        ("StudyDate=2026010120260131", "no date"),
        ("StudyDate=-", "no date"),
        ("StudyInstanceUID=1.2;drop", "not a UID"),
        ("limit=-1", "no number"),
        ("offset=1e9", "no number"),
        ("PatientID=" + "x" * 300, "longer than"),
        ("PatientID=%00", "no value has"),
        ("PatientID=%ff", "not UTF-8"),
        ("&".join(f"includefield=0008{n:04x}" for n in range(99, 220)), "parameters"),
    ],
)
def test_what_is_no_question_is_400_and_not_repeated(web: httpx.Client, asked: str, said: str) -> None:
    answer = web.get(f"/dicom-web/studies?{asked}")
    assert answer.status_code == 400 and said in answer.text
    assert "drop" not in answer.text and "yesterday" not in answer.text and "xxx" not in answer.text


def test_a_page_takes_as_many_queries_however_long_it_is(web: httpx.Client, filled: Filled) -> None:
    asked: list[str] = []
    engine = filled.site.reading().catalog._engine
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: asked.append(statement))
    counts = []
    for limit in (1, 3):
        asked.clear()
        # Of a study that has settled: what is arriving has no label, and is asked for by itself.
        assert web.get(f"/dicom-web/studies?StudyDate=-20260228&limit={limit}").status_code == 200
        counts.append(sum("SELECT" in one for one in asked))
    assert counts[0] == counts[1] <= 5


def test_what_an_earlier_version_has_labelled_is_found_by_its_images(web: httpx.Client, filled: Filled) -> None:
    from dicomnode.store.catalog.labels import Label, Unlabelled

    uid = list(filled.studies)[1]
    filled.catalog.note_label(Unlabelled(uid, 1, 210.0, None), Label("P-2", "", "A-2", ""))
    assert dates(web.get("/dicom-web/studies?PatientName=Bolt*&StudyDate=20260203")) == ["20260203"]


def test_no_transaction_is_open_while_studies_are_looked_at(
    web: httpx.Client, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends one that idles for seconds; and a page goes on behind the last study of the one before."""
    everything = dates(web.get("/dicom-web/studies"))
    monkeypatch.setattr(web_holdings, "_AT_ONCE", 1)
    catalog = filled.site.reading().catalog
    found = []
    for study in catalog.web_studies(WebWanted()):
        found.append(study.study_uid)
        assert catalog._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert len(found) == len(set(found)) == len(everything)
    assert dates(web.get("/dicom-web/studies")) == everything


def test_each_of_several_values_is_found(
    web: httpx.Client, filled: Filled, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images = chest("P-7\\P-7B", "Twice^Tom", "20250101", "A-7", slices=1)
    filled.settle(filled.receive(images, 30.0, tmp_path_factory.mktemp("several")), 35.0)
    for asked in ("PatientName=Twice*&PatientID=P-7*", "PatientName=Twice*&PatientID=P-7?"):
        assert dates(web.get(f"/dicom-web/studies?{asked}")) == ["20250101"]
    assert web.get("/dicom-web/studies?PatientID=*'*").status_code == 204
