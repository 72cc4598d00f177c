"""A result in FHIR, as another library reads it: valid resources, the reports' numbers, nothing that says too much."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom.dataset import Dataset

from dicomnode.outbound.destinations.reports import message_of
from dicomnode.report.outward.fhir import transaction
from dicomnode.report.outward.identity import UnaddressedError
from dicomnode.report.wording import DEMO
from tests.helpers.result_folders import EVERYTHING, PDF, numbers, write_refusal, write_result


def made(path: Path, parts: tuple[Any, ...] = EVERYTHING, systems: dict[str, str] | None = None) -> dict[str, Any]:
    """The transaction of a result, which fhir.resources has validated."""
    content, entries = transaction(message_of(path, parts), systems or {})
    bundle: dict[str, Any] = json.loads(content)
    Bundle.model_validate_json(content)
    assert len(bundle["entry"]) == entries
    return bundle


def of(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def test_every_number_of_the_reports_is_an_observation_of_the_report(tmp_path: Path) -> None:
    bundle = made(write_result(tmp_path / "g1", pdf=PDF))
    observations = of(bundle, "Observation")
    expected = [
        n for name in ("measurements", "risk") for n in numbers(pydicom.dcmread(tmp_path / "g1" / f"{name}.dcm"))
    ]
    assert [o["valueQuantity"]["value"] for o in observations] == expected
    [report] = of(bundle, "DiagnosticReport")
    addresses = [e["fullUrl"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Observation"]
    assert [r["reference"] for r in report["result"]] == addresses
    assert len(set(addresses)) == len(addresses) == len(expected)
    [volume] = [o for o in observations if o["code"]["text"] == "Volume, Right lung"]
    assert volume["code"]["coding"] == [{"system": "http://snomed.info/sct", "code": "118565006", "display": "Volume"}]
    assert volume["valueQuantity"] == {
        "value": 2321.0,
        "unit": "cm3",
        "system": "http://unitsofmeasure.org",
        "code": "cm3",
    }
    assert volume["bodySite"]["coding"][0]["code"] == "39607008"
    assert base64.b64decode(report["presentedForm"][0]["data"]) == PDF


def test_a_code_of_the_hospital_with_spaces_in_it_is_a_code(tmp_path: Path) -> None:
    def spaced(header: Dataset) -> None:
        header.ProcedureCodeSequence[0].CodeValue = "CT  THX  1"

    bundle = made(write_result(tmp_path / "g1", change=spaced))
    [report] = of(bundle, "DiagnosticReport")
    assert report["code"]["coding"][0]["code"] == "CT THX 1"


def test_it_names_patient_order_and_study_by_their_identifiers_alone(tmp_path: Path) -> None:
    bundle = made(write_result(tmp_path / "g1"))
    assert {e["resource"]["resourceType"] for e in bundle["entry"]} == {"Device", "Observation", "DiagnosticReport"}
    [report] = of(bundle, "DiagnosticReport")
    assert report["subject"]["identifier"]["value"] == "PAT-0001"
    assert report["subject"]["identifier"]["assigner"] == {"display": "HOSPITAL"}
    [order] = report["basedOn"]
    assert (order["identifier"]["value"], order["display"]) == ("ACC0001", "requested procedure RP-1")
    [study] = report["imagingStudy"]
    assert study["identifier"] == {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}
    assert report["effectiveDateTime"] == "2026-01-01"  # the images state no time zone
    content = json.dumps(bundle, ensure_ascii=False)
    assert "Müller" not in content
    assert not [day for day in ("19600101", "1960-01-01") if day in content]


def test_the_request_lines_name_nobody(tmp_path: Path) -> None:
    for entry in made(write_result(tmp_path / "g1"))["entry"]:
        line = json.dumps(entry["request"])
        assert "urn:dicom:uid|urn:oid:2.25." in line
        assert not [word for word in ("PAT-0001", "ACC0001", "RP-1", '"1.2.3') if word in line]


def test_the_time_of_day_stands_where_the_images_state_their_zone(tmp_path: Path) -> None:
    def zoned(header: Dataset) -> None:
        header.TimezoneOffsetFromUTC = "+0100"

    [report] = of(made(write_result(tmp_path / "g1", change=zoned)), "DiagnosticReport")
    assert report["effectiveDateTime"] == "2026-01-01T10:11:12+01:00"
    assert report["issued"] == "2026-01-02T11:11:12+01:00"


def test_a_synthetic_model_says_so_in_every_resource_and_nothing_is_final(tmp_path: Path) -> None:
    for entry in made(write_result(tmp_path / "g1"))["entry"]:
        resource = entry["resource"]
        said = resource.get("conclusion") or " ".join(note["text"] for note in resource["note"])
        assert said.startswith(DEMO)
        assert resource["status"] in ("preliminary", "active")


def test_the_same_result_gives_the_same_bytes_and_another_one_the_same_identifiers(tmp_path: Path) -> None:
    path = write_result(tmp_path / "g1")
    assert transaction(message_of(path, EVERYTHING), {}) == transaction(message_of(path, EVERYTHING), {})
    later = write_result(tmp_path / "g2", findings=lambda found: replace(found, input_digest="78" * 32))
    lines = [[e["request"] for e in made(one)["entry"]] for one in (path, later)]
    assert lines[0] == lines[1]


def test_what_a_later_version_no_longer_has_is_withdrawn(tmp_path: Path) -> None:
    before = made(write_result(tmp_path / "g1"))
    after = made(write_result(tmp_path / "g2", predicted=False))
    gone = [o for o in of(after, "Observation") if o["status"] == "entered-in-error"]
    assert len(gone) == 9
    assert all("valueQuantity" not in o for o in gone)
    known = {o["identifier"][0]["value"] for o in of(before, "Observation")}
    assert {o["identifier"][0]["value"] for o in gone} < known
    [report] = of(after, "DiagnosticReport")
    assert len(report["result"]) == len(of(after, "Observation")) - 9


def test_what_an_earlier_run_has_left_in_the_folder_is_none_of_it(tmp_path: Path) -> None:
    write_result(tmp_path / "g1")
    path = write_result(tmp_path / "g1", predicted=False, findings=lambda found: replace(found, input_digest="9" * 64))
    assert (tmp_path / "g1" / "risk.dcm").is_file()
    assert not [o for o in of(made(path), "Observation") if "MORT" in o["code"]["coding"][0]["code"]]


def test_only_the_parts_that_are_wanted(tmp_path: Path) -> None:
    path = write_result(tmp_path / "g1", pdf=PDF)
    bundle = made(path, ("risk",))
    assert len(of(bundle, "Observation")) == 9
    assert "presentedForm" not in of(bundle, "DiagnosticReport")[0]


def test_a_refusal_is_a_cancelled_report_with_its_reasons(tmp_path: Path) -> None:
    bundle = made(write_refusal(tmp_path / "g1", PDF))
    [report] = of(bundle, "DiagnosticReport")
    assert base64.b64decode(report["presentedForm"][0]["data"]) == PDF
    assert report["status"] == "cancelled"
    assert "the images state no modality" in report["conclusion"]
    assert of(bundle, "Observation") == []


@pytest.mark.parametrize(
    ("issuer", "systems", "system"),
    [
        ("HOSPITAL", {"HOSPITAL": "urn:oid:1.2.9"}, "urn:oid:1.2.9"),
        ("", {"": "urn:oid:1.2.8"}, "urn:oid:1.2.8"),
        ("HOSPITAL", {}, None),
    ],
)
def test_the_system_of_a_patient_id_is_its_issuers(
    tmp_path: Path, issuer: str, systems: dict[str, str], system: str | None
) -> None:
    def issued(header: Dataset) -> None:
        header.IssuerOfPatientID = issuer

    [report] = of(made(write_result(tmp_path / "g1", change=issued), systems=systems), "DiagnosticReport")
    assert report["subject"]["identifier"].get("system") == system


@pytest.mark.parametrize("issuer", ["HOSPITAL", ""])
def test_a_patient_of_somebody_else_is_not_filed_under_ours(tmp_path: Path, issuer: str) -> None:
    def issued(header: Dataset) -> None:
        header.IssuerOfPatientID = issuer

    message = message_of(write_result(tmp_path / "g1", change=issued), EVERYTHING)
    with pytest.raises(UnaddressedError, match="add it there") as caught:
        transaction(message, {"OTHER": "urn:oid:1.2.7"})
    assert "PAT-0001" not in str(caught.value)


def test_without_a_patient_id_there_is_no_report(tmp_path: Path) -> None:
    def anonymous(header: Dataset) -> None:
        header.PatientID = ""

    message = message_of(write_result(tmp_path / "g1", change=anonymous), EVERYTHING)
    with pytest.raises(UnaddressedError, match="no Patient ID"):
        transaction(message, {})
