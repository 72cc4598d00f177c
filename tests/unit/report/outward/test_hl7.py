"""A result in HL7 version 2, as another library (python-hl7) reads it."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import hl7
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomnode.analysis.findings import Findings
from dicomnode.errors import PeerRejectedError
from dicomnode.outbound.destinations.reports import message_of
from dicomnode.report.outward.hl7 import Addressing, encode, escaped
from dicomnode.report.outward.identity import UnaddressedError
from dicomnode.report.wording import DEMO
from tests.helpers.result_folders import EVERYTHING, PDF, numbers, write_refusal, write_result

TO = Addressing("DICOMNODE", "RAD", "RIS|X", "", "P", "HOME")


def parsed(path: Path) -> hl7.Message:
    content, number = encode(message_of(path, EVERYTHING), TO)
    message = hl7.parse(content.decode("utf-8"))
    assert str(message.segment("MSH")[10]) == number
    return message


def obx(message: hl7.Message, kind: str) -> list[hl7.Segment]:
    return [segment for segment in message.segments("OBX") if str(segment[2]) == kind]


def test_every_number_of_the_reports_is_an_obx(tmp_path: Path) -> None:
    message = parsed(write_result(tmp_path / "g1", pdf=PDF))
    expected = [
        n for name in ("measurements", "risk") for n in numbers(pydicom.dcmread(tmp_path / "g1" / f"{name}.dcm"))
    ]
    rows = obx(message, "NM")
    assert [float(str(row[5])) for row in rows] == expected
    assert {str(row[11]) for row in rows} == {"P"}
    keys = [(str(row[3][0][0]), str(row[4])) for row in rows]
    assert len(set(keys)) == len(keys)
    first = rows[0]
    assert str(first[3]) == "118565006^Volume^SCT"
    assert (str(first[4]), str(first[6])) == ("Right lung", "cm3^cubic centimeter^UCUM")
    assert message.unescape(str(rows[4][6][0][0])) == "[hnsf'U]"
    assert str(rows[4][3]).endswith("^112031^Attenuation Coefficient^DCM")
    [document] = obx(message, "ED")
    assert base64.b64decode(str(document[5][0][4])) == PDF
    assert [str(s[1]) for s in message.segments("OBX")] == [str(n) for n in range(1, len(message.segments("OBX")) + 1)]


def test_a_trace_is_a_number_as_hl7_writes_them(tmp_path: Path) -> None:
    """NM has no exponent (section 2A.3.47)."""

    def trace(found: Findings) -> Findings:
        return replace(found, quantities={k: replace(q, laa950_percent=3e-05) for k, q in found.quantities.items()})

    values = [str(row[5]) for row in obx(parsed(write_result(tmp_path / "g1", findings=trace)), "NM")]
    assert "0.00003" in values
    assert all(re.fullmatch(r"[+-]?\d+(\.\d+)?", value) for value in values)


def test_whose_it_is_and_which_order_it_answers(tmp_path: Path) -> None:
    message = parsed(write_result(tmp_path / "g1"))
    header = message.segment("MSH")
    assert (str(header[9]), str(header[12]), str(header[18])) == ("ORU^R01^ORU_R01", "2.5.1", "UNICODE UTF-8")
    assert message.unescape(str(header[5])) == "RIS|X"
    patient = message.segment("PID")
    assert str(patient[3]) == "PAT-0001^^^HOSPITAL^MR"
    assert str(patient[5]) == "Müller^Änne^^^^^^A"
    assert (str(patient[7]), str(patient[8])) == ("19600101", "F")
    order = message.segment("OBR")
    assert (str(order[3]), str(order[18]), str(order[19])) == ("ACC0001", "ACC0001", "RP-1")
    assert (str(order[7]), str(order[25])) == ("20260101101112", "P")


def test_a_placer_and_a_filler_number_are_the_orders(tmp_path: Path) -> None:
    def ordered(header: Dataset) -> None:
        request = header.RequestAttributesSequence[0]
        request.PlacerOrderNumberImagingServiceRequest = "PLACE^1"
        request.FillerOrderNumberImagingServiceRequest = "FILL&2"

    message = parsed(write_result(tmp_path / "g1", change=ordered))
    for segment in (message.segment("ORC"), message.segment("OBR")):
        assert message.unescape(str(segment[2])) == "PLACE^1"
        assert message.unescape(str(segment[3])) == "FILL&2"


def test_two_orders_get_the_whole_result_each(tmp_path: Path) -> None:
    def both(header: Dataset) -> None:
        second = Dataset()
        second.AccessionNumber, second.RequestedProcedureID = "ACC0002", "RP-2"
        header.RequestAttributesSequence = Sequence([*header.RequestAttributesSequence, second])

    message = parsed(write_result(tmp_path / "g1", change=both))
    assert [str(s[18]) for s in message.segments("OBR")] == ["ACC0001", "ACC0002"]
    rows = [str(row[5]) for row in obx(message, "NM")]
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


@pytest.mark.parametrize(
    "odd", ["a|b", "a^b", "a&b", "a~b", "a\\b", "a\rOBX|1|NM", "a\nb", "a\x0bb\x1cc", "a\\F\\b", "Ω 漢字 عربى", "\x7f"]
)
def test_no_text_becomes_structure(tmp_path: Path, odd: str) -> None:
    """A hostile Patient ID, name and order number stay what they are: text in their own field."""
    assert not set("|^&~\r\n\x0b\x1c") & set(escaped(odd))

    def hostile(header: Dataset) -> None:
        for keyword in ("PatientID", "StudyDescription"):
            header[keyword].value = odd.replace("\\", "/")  # a backslash separates values in DICOM
        header.IssuerOfPatientID = odd.replace("\\", "/")

    plain = parsed(write_result(tmp_path / "plain" / "g1"))
    odd_one = parsed(write_result(tmp_path / "odd" / "g1", change=hostile))
    assert [str(s[0]) for s in odd_one] == [str(s[0]) for s in plain]
    encoded = str(odd_one.segment("PID")[3][0][0])
    assert encoded == escaped(odd.replace("\\", "/").strip())


def test_the_scripts_of_a_name_are_told_apart(tmp_path: Path) -> None:
    def japanese(header: Dataset) -> None:
        header.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"

    patient = parsed(write_result(tmp_path / "g1", change=japanese)).segment("PID")
    assert str(patient[5]) == "Yamada^Tarou^^^^^^A~山田^太郎^^^^^^I~やまだ^たろう^^^^^^P"


def test_a_name_with_a_backslash_is_one_name(tmp_path: Path) -> None:
    """`invalid_identity = "verbatim"`: it is repeated as it came, though a PN has no backslash (PS3.5 6.2)."""

    def odd(header: Dataset) -> None:
        header.PatientName = "Doe\\Jane^A"

    patient = parsed(write_result(tmp_path / "g1", change=odd)).segment("PID")
    assert str(patient[5]) == "Doe\\E\\Jane^A^^^^^^A"


def test_a_synthetic_model_says_so_at_the_order_and_at_every_number(tmp_path: Path) -> None:
    content, _ = encode(message_of(write_result(tmp_path / "g1"), EVERYTHING), TO)
    segments = content.decode("utf-8").split("\r")
    wanting = [n for n, one in enumerate(segments) if one.startswith("OBR|") or re.match(r"OBX\|\d+\|NM\|", one)]
    assert len(wanting) > 60
    assert {segments[n + 1] for n in wanting} == {f"NTE|1|L|{DEMO}"}


def test_what_a_later_version_no_longer_has_is_deleted(tmp_path: Path) -> None:
    write_result(tmp_path / "g1")
    message = parsed(write_result(tmp_path / "g2", predicted=False))
    gone = [row for row in obx(message, "NM") if str(row[11]) == "D"]
    assert len(gone) == 9
    assert {str(row[5]) for row in gone} == {'""'}


def test_a_refusal_has_no_result_and_says_why(tmp_path: Path) -> None:
    message = parsed(write_refusal(tmp_path / "g1"))
    assert str(message.segment("OBR")[25]) == "X"
    assert obx(message, "NM") == []
    assert any("the images state no modality" in str(row[5]) for row in obx(message, "TX"))


def test_the_same_result_is_the_same_message(tmp_path: Path) -> None:
    path = write_result(tmp_path / "g1")
    assert encode(message_of(path, EVERYTHING), TO) == encode(message_of(path, EVERYTHING), TO)


def test_an_id_without_issuer_is_of_the_configured_authority(tmp_path: Path) -> None:
    def of_ours(header: Dataset) -> None:
        del header.IssuerOfPatientID

    assert str(parsed(write_result(tmp_path / "g1", change=of_ours)).segment("PID")[3]) == "PAT-0001^^^HOME^MR"


def test_an_issuer_with_an_oid_has_it_too(tmp_path: Path) -> None:
    def qualified(header: Dataset) -> None:
        item = Dataset()
        item.UniversalEntityID, item.UniversalEntityIDType = "1.2.9", "ISO"
        header.IssuerOfPatientIDQualifiersSequence = [item]

    assert "^HOSPITAL&1.2.9&ISO^MR" in str(parsed(write_result(tmp_path / "g1", change=qualified)).segment("PID")[3])


def test_an_identifier_that_does_not_decode_is_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path / "g1")
    path.write_bytes(path.read_bytes().replace(b"PAT-0001", b"PAT\xff\xfe001"))
    with pytest.raises(PeerRejectedError, match="not text in the character set"):
        message_of(path, EVERYTHING)


def test_without_a_patient_id_there_is_no_message(tmp_path: Path) -> None:
    def anonymous(header: Dataset) -> None:
        header.PatientID = ""

    message = message_of(write_result(tmp_path / "g1", change=anonymous), EVERYTHING)
    with pytest.raises(UnaddressedError, match="no Patient ID"):
        encode(message, TO)
