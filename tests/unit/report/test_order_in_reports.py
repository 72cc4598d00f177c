"""An order of the worklist in the reports: where it may stand, and never over the study's own values."""

import io

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.analysis.findings import Findings
from dicomnode.report import source, uids
from dicomnode.report.context import RISK, Context
from dicomnode.report.sr import risk
from tests.helpers import report_cases as cases

PROCEDURE = "胸部ＣＴ".encode("iso2022_jp")


def code(value: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, "LN", meaning
    return made


def an_order(**attributes: object) -> Dataset:
    """A worklist item as it is read from what came."""
    made = Dataset()
    made.file_meta = cases.synthetic(1)[0].file_meta
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.31", "1.2"
    made.SpecificCharacterSet = "\\ISO 2022 IR 87"
    made.PatientName, made.PatientID, made.StudyInstanceUID = "Yamada^Tarou=山田^太郎", "PAT-0001", "1.2.3"
    made.AccessionNumber, made.RequestedProcedureID = "RIS1", "RP1"
    made.RequestedProcedureDescription = "胸部ＣＴ"
    made.RequestedProcedureCodeSequence = [code("24627-2", "CT Chest")]
    made.PlacerOrderNumberImagingServiceRequest = "PLACER1"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return cases.reread(made)


def headers(**attributes: object) -> list[Dataset]:
    """Images without any order, unless `attributes` gives one."""
    made = cases.synthetic()
    for header in made:
        del header.RequestAttributesSequence
        del header.ProcedureCodeSequence
        header.AccessionNumber = None
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
    return [cases.reread(header) for header in made]


def report(images: list[Dataset], order: Dataset | None) -> Dataset:
    context = Context(**{**vars(cases.CONTEXT), "order": order})
    made = risk.encode(images, cases.findings_of(images, predicted=cases.risk("research")), context)
    return pydicom.dcmread(io.BytesIO(cases.to_bytes(made)))


def procedure(made: Dataset) -> str:
    (item,) = [i for i in made.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058"]
    return str(item.ConceptCodeSequence[0].CodeValue)


def test_an_order_fills_what_the_images_lack() -> None:
    made = report(headers(), an_order())
    assert made.AccessionNumber == "RIS1"
    (request,) = made.ReferencedRequestSequence
    assert (request.AccessionNumber, request.RequestedProcedureID) == ("RIS1", "RP1")
    assert request.StudyInstanceUID == "1.2.3"
    assert request.PlacerOrderNumberImagingServiceRequest == "PLACER1"
    assert request.RequestedProcedureDescription == "胸部ＣＴ"
    assert procedure(made) == "24627-2"
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert made.PatientName == "Müller^Änne"


def test_its_words_arrive_byte_for_byte() -> None:
    content = cases.to_bytes(risk_of(headers(), an_order()))
    assert content.count(PROCEDURE) == 1
    assert "山田".encode("iso2022_jp") not in content  # the worklist's patient is not ours to pass on


def risk_of(images: list[Dataset], order: Dataset) -> Dataset:
    context = Context(**{**vars(cases.CONTEXT), "order": order})
    return risk.encode(images, cases.findings_of(images, predicted=cases.risk("research")), context)


def test_the_study_s_own_values_stand() -> None:
    made = report(headers(AccessionNumber="OWN1", ProcedureCodeSequence=[code("30746-2", "CT Own")]), an_order())
    assert made.AccessionNumber == "OWN1"
    assert procedure(made) == "30746-2"


def test_an_image_that_names_its_order_keeps_it() -> None:
    own = Dataset()
    own.RequestedProcedureID, own.AccessionNumber = "OWN-RP", "OWN1"
    images = headers(AccessionNumber="OWN1", RequestAttributesSequence=[own])
    assert source.names_its_order(images[0])
    (request,) = report(images, an_order()).ReferencedRequestSequence
    assert (request.RequestedProcedureID, request.AccessionNumber) == ("OWN-RP", "OWN1")


def test_a_code_whose_meaning_needs_another_character_set_is_left_out() -> None:
    order = an_order(RequestedProcedureCodeSequence=[code("30745-4", "胸部")])
    assert procedure(report(headers(), order)) == "24627-2"
    (request,) = report(headers(), order).ReferencedRequestSequence
    assert request.RequestedProcedureCodeSequence[0].CodeMeaning == "胸部"  # under the item's own character set


def test_an_accession_number_that_is_not_ascii_is_left_out() -> None:
    assert not report(headers(), an_order(AccessionNumber="山1")).AccessionNumber


def test_without_an_order_nothing_changes() -> None:
    made = report(headers(), None)
    assert "ReferencedRequestSequence" not in made
    assert not made.AccessionNumber


@pytest.mark.parametrize(
    ("changes", "differs"),
    [({}, False), ({"AccessionNumber": "RIS2"}, True), ({"PatientName": "Other^One"}, False)],
)
def test_only_what_the_reports_take_makes_another_version(changes: dict[str, str], differs: bool) -> None:
    first = source.order_bytes(an_order(), headers()[0])
    assert (source.order_bytes(an_order(**changes), headers()[0]) != first) is differs
    assert b"RIS1" in first


def test_the_digest_of_the_surroundings_makes_other_uids() -> None:
    plain = cases.analysed()
    other = Findings(**{**vars(plain), "surroundings_digest": "ab" * 32})
    assert uids.sop_instance(RISK, "1.2.3", plain) != uids.sop_instance(RISK, "1.2.3", other)
    assert uids.series(RISK, "1.2.3", plain) != uids.series(RISK, "1.2.3", other)
    assert Findings.from_json(other.to_json()) == other
