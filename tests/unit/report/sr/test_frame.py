"""The structured reports: what they say, what they refer to, and that nothing in them is invented."""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.analysis.findings import Conditions, Findings, Flag, Horizon
from dicomnode.report import codes, segmentation, source, uids
from dicomnode.report.context import MEASUREMENTS, Context
from dicomnode.report.sr import measurements, prior_scans, refusal, risk
from dicomnode.report.wording import DEMO
from tests.helpers import report_cases as cases


def walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from walk(child)


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def texts(document: Dataset) -> list[str]:
    return [str(item.TextValue) for item in walk(document) if item.ValueType == "TEXT"]


def numbers(document: Dataset) -> list[tuple[str, float, str]]:
    """(concept, value, unit) of every NUM item."""
    measured = [(item, item.MeasuredValueSequence[0]) for item in walk(document) if item.ValueType == "NUM"]
    return [(name(i), float(m.NumericValue), m.MeasurementUnitsCodeSequence[0].CodeValue) for i, m in measured]


def outcome(document: Dataset) -> str:
    return next(str(i.ConceptCodeSequence[0].CodeValue) for i in walk(document) if name(i) == "111065")


def all_documents(findings: Findings, context: Context = cases.CONTEXT) -> dict[str, Dataset]:
    headers = cases.synthetic()
    seg = segmentation.encode(headers, cases.boxes(), findings, context)
    return {
        "segmentation": seg,
        "measurements": measurements.encode(headers, findings, seg, context),
        "risk": risk.encode(headers, findings, context),
        "refusal": refusal.encode(headers[0], cases.refused(), context),
    }


FINDINGS = cases.analysed(predicted=cases.risk("research"))
REPORTS = ("measurements", "risk", "refusal")


@pytest.fixture(scope="module")
def documents() -> dict[str, Dataset]:
    return {key: cases.reread(document) for key, document in all_documents(FINDINGS).items()}


def test_every_group_says_what_its_attenuation_depends_on() -> None:
    known = dataclasses.replace(FINDINGS, conditions=Conditions(noise_hu=17.3, air_hu=-988.0))
    said = [
        [t for t in texts(all_documents(findings)["measurements"]) if t.startswith("Kernel ")]
        for findings in (known, FINDINGS)
    ]
    series = FINDINGS.series
    assert series is not None
    kernel = f"Kernel {series.kernel or 'not given'} ({series.kernel_family}), 4.00 mm thick; noise in the airways "
    assert said == [[kernel + "17.3 HU, air -988 HU"] * 3, [kernel + "not measured"] * 3]


def test_the_measurements_are_the_findings(documents: dict[str, Dataset]) -> None:
    found = numbers(documents["measurements"])
    assert len(found) == 3 * 14 + 6 * 3
    assert found[0] == ("118565006", 2321.0, "cm3")
    assert [value for concept, value, _ in found if concept == "118565006"] == [2321.0, 2000.0, 4321.0]
    assert ("ATTP15", -925.0, "[hnsf'U]") in found
    assert ("HAA600_250", 12.5, "%") in found
    assert ("LAA950", 3.2, "%") in found
    assert ("DENSE_250", 1.8, "%") in found
    assert [value for concept, value, _ in found if concept == "LEFTOUT"] == [7.0, 5.0, 12.0]
    assert ("HAA_LOWRIM", 12.5, "%") in found
    assert ("MEAN_CORE", -796.0, "[hnsf'U]") in found


def test_groups_refer_to_their_segments(documents: dict[str, Dataset]) -> None:
    images = [i for i in walk(documents["measurements"]) if name(i) == "121191"]
    references = [i.ReferencedSOPSequence[0] for i in images]
    assert [r.ReferencedSegmentNumber for r in references] == [1, 2, [1, 2]]
    assert {r.ReferencedSOPInstanceUID for r in references} == {documents["segmentation"].SOPInstanceUID}


def test_tracking_pairs_are_the_segments_own_and_distinct(documents: dict[str, Dataset]) -> None:
    report, seg = documents["measurements"], documents["segmentation"]
    identifiers = [str(i.TextValue) for i in walk(report) if name(i) == "112039"]
    tracking = [str(i.UID) for i in walk(report) if name(i) == "112040"]
    pairs = list(zip(identifiers, tracking, strict=True))
    assert pairs[:2] == [(s.TrackingID, s.TrackingUID) for s in seg.SegmentSequence]
    assert len(set(tracking)) == len(set(identifiers)) == 3


def test_the_risk_in_percent_with_its_bounds(documents: dict[str, Dataset]) -> None:
    assert numbers(documents["risk"]) == [
        *(("MORT1Y", 10.0, "%"), ("MORT1Y_LOW", 5.0, "%"), ("MORT1Y_HIGH", 20.0, "%")),
        *(("MORT3Y", 20.0, "%"), ("MORT3Y_LOW", 10.0, "%"), ("MORT3Y_HIGH", 40.0, "%")),
        *(("MORT5Y", 30.0, "%"), ("MORT5Y_LOW", 15.0, "%"), ("MORT5Y_HIGH", 60.0, "%")),
    ]
    said = texts(documents["risk"])
    assert "Spread of 5 models, not the certainty of the risk" in said
    assert {"example-bundle", "1.2.3", f"bundle sha256={'ab' * 32}"} <= set(said)


def test_a_refusal_gives_reasons_and_no_number(documents: dict[str, Dataset]) -> None:
    document = documents["refusal"]
    assert numbers(document) == []
    assert outcome(document) == codes.NOT_ATTEMPTED.value
    assert "Series 1.2.3.9 (no modality, 2 images): the images state no modality" in texts(document)


def test_a_chosen_series_that_failed_is_failed_and_not_unattempted() -> None:
    findings = dataclasses.replace(cases.refused(), series=FINDINGS.series)
    assert outcome(refusal.encode(cases.synthetic(1)[0], findings, cases.CONTEXT)) == codes.FAILED.value


def test_a_study_without_any_series_is_refused_in_words() -> None:
    findings = dataclasses.replace(cases.refused(), rejected=())
    document = refusal.encode(cases.synthetic(1)[0], findings, cases.CONTEXT)
    assert "No series of this study could be analysed." in texts(document)


@pytest.mark.parametrize(
    ("flag", "predicted", "expected"),
    [
        (None, True, codes.SUCCEEDED),
        (None, False, codes.SUCCEEDED),
        (Flag("cut", "error", "lungs are cut off"), False, codes.PARTIALLY_SUCCEEDED),
        (Flag("cut", "error", "lungs are cut off"), True, codes.SUCCEEDED),
    ],
)
def test_the_outcome_of_the_measurements(flag: Flag | None, predicted: bool, expected: codes.Code) -> None:
    findings = dataclasses.replace(FINDINGS, flags=(flag,) if flag else (), risk=FINDINGS.risk if predicted else None)
    headers = cases.synthetic()
    seg = segmentation.encode(headers, cases.boxes(), findings, cases.CONTEXT)
    assert outcome(measurements.encode(headers, findings, seg, cases.CONTEXT)) == expected.value


@pytest.mark.parametrize("key", REPORTS)
def test_every_report_is_for_research_and_unverified(documents: dict[str, Dataset], key: str) -> None:
    document = documents[key]
    assert any(text.startswith("Research use only; check the images first") for text in texts(document))
    assert (document.CompletionFlag, document.PreliminaryFlag) == ("COMPLETE", "FINAL")
    assert document.VerificationFlag == "UNVERIFIED"
    assert document.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == codes.SCHEME
    assert document.ContributingEquipmentSequence[0].DeviceUID == uids.device(FINDINGS.algorithm_digest)


@pytest.mark.parametrize("key", ("measurements", "risk"))
def test_doubts_stand_in_the_report_the_worst_first(documents: dict[str, Dataset], key: str) -> None:
    qualities = documents[key].ContentSequence[-1]
    doubts = [text for text in texts(qualities) if text.startswith(("WARNING", "INFO"))]
    assert doubts == ["WARNING: slices are 4.0 mm apart, more than 1.5 mm", "INFO: no contrast agent was recorded"]


@pytest.mark.parametrize("key", REPORTS)
def test_order_and_procedure_are_the_source_bytes(documents: dict[str, Dataset], key: str) -> None:
    request = documents[key].ReferencedRequestSequence[0]
    description = request.get_item(Tag("RequestedProcedureDescription"))
    assert isinstance(description, RawDataElement)
    assert description.value.rstrip() == "CT Thorax hochauflösend".encode()
    procedure = next(i for i in walk(documents[key]) if name(i) == "121058").ConceptCodeSequence[0]
    assert (procedure.CodeValue, procedure.CodeMeaning) == ("CTTHX", "CT Thorax für SSc")


@pytest.mark.parametrize("key", ("segmentation", *REPORTS))
def test_patient_and_study_are_the_source_bytes(key: str) -> None:
    written = cases.reread(all_documents(FINDINGS)[key])
    header = cases.synthetic(1)[0]
    for keyword in ("PatientName", "PatientID", "IssuerOfPatientID", "StudyDescription", "ReferringPhysicianName"):
        ours, theirs = written.get_item(Tag(keyword)), header.get_item(Tag(keyword))
        assert isinstance(ours, RawDataElement)
        assert ours.value == theirs.value, keyword


@pytest.mark.parametrize("key", ("segmentation", *REPORTS))
def test_encoding_twice_gives_the_same_bytes(key: str) -> None:
    first, second = (cases.to_bytes(all_documents(FINDINGS)[key]) for _ in range(2))
    assert first == second


def test_no_object_shares_a_uid_with_another(documents: dict[str, Dataset]) -> None:
    assert len({d.SOPInstanceUID for d in documents.values()}) == 4
    assert len({d.SeriesInstanceUID for d in documents.values()}) == 4
    assert {str(d.StudyInstanceUID) for d in documents.values()} == {"1.2.3"}


def test_a_demonstration_model_is_named_everywhere() -> None:
    made = all_documents(cases.analysed(predicted=cases.risk("synthetic-demo")))
    for key in ("segmentation", "measurements", "risk"):
        assert DEMO in made[key].SeriesDescription
    for key in ("measurements", "risk"):
        assert f"{DEMO}." in texts(made[key])


def test_foreign_signs_in_flags_become_ascii() -> None:
    findings = dataclasses.replace(FINDINGS, flags=(Flag("x", "warning", "Kernel «B60ö» \N{EN DASH} ≥ 5 mm"),))
    assert 'WARNING: Kernel "B60o" - >= 5 mm' in texts(all_documents(findings)["measurements"])


def test_a_new_result_names_its_predecessor() -> None:
    earlier = dataclasses.replace(FINDINGS, input_digest="earlier")
    context = dataclasses.replace(cases.CONTEXT, previous=earlier, created=cases.CONTEXT.created + timedelta(hours=1))
    before = all_documents(earlier)
    after = all_documents(FINDINGS, context)
    for key in ("measurements", "risk"):
        reference = after[key].PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == before[key].SOPInstanceUID
        assert after[key].SOPInstanceUID != before[key].SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in before["risk"]


def test_a_result_after_a_refusal_names_the_refusal_and_the_reverse() -> None:
    context = dataclasses.replace(cases.CONTEXT, previous=cases.refused())
    made = all_documents(FINDINGS, context)
    reference = (
        made["measurements"].PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    )
    assert reference.ReferencedSOPInstanceUID == all_documents(FINDINGS)["refusal"].SOPInstanceUID
    context = dataclasses.replace(cases.CONTEXT, previous=FINDINGS)
    refused = refusal.encode(cases.synthetic(1)[0], cases.refused(), context)
    reference = refused.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == made["measurements"].SOPInstanceUID


def test_there_is_no_predecessor_where_there_was_no_risk() -> None:
    context = dataclasses.replace(cases.CONTEXT, previous=dataclasses.replace(FINDINGS, risk=None))
    assert "PredecessorDocumentsSequence" not in risk.encode(cases.synthetic(), FINDINGS, context)


def test_without_procedure_codes_a_ct_of_the_chest_is_reported() -> None:
    headers = cases.synthetic()
    for header in headers:
        del header.ProcedureCodeSequence
    assert source.procedures(headers[0]) == []
    document = risk.encode(headers, FINDINGS, cases.CONTEXT)
    assert next(i for i in walk(document) if name(i) == "121058").ConceptCodeSequence[0].CodeValue == "24627-2"


def test_what_cannot_be_encoded_is_refused() -> None:
    headers = cases.synthetic()
    seg = segmentation.encode(headers, cases.boxes(), FINDINGS, cases.CONTEXT)
    with pytest.raises(ValueError, match="have none"):
        risk.encode(headers, cases.analysed(), cases.CONTEXT)
    with pytest.raises(ValueError, match="no quantities of the lungs"):
        measurements.encode(headers, dataclasses.replace(FINDINGS, quantities={}), seg, cases.CONTEXT)
    with pytest.raises(ValueError, match="have no lungs"):
        measurements.encode(headers, cases.refused(), seg, cases.CONTEXT)
    with pytest.raises(ValueError, match="the findings are analysed"):
        refusal.encode(headers[0], FINDINGS, cases.CONTEXT)


def test_a_horizon_is_named_as_its_bundle_declares_it() -> None:
    odd = dataclasses.replace(cases.risk(), horizons=(Horizon(2, 0.1, 0.0, 0.2), Horizon(10, 0.3, 0.2, 0.4)))
    document = risk.encode(cases.synthetic(), cases.analysed(predicted=odd), cases.CONTEXT)
    expected = [("MORT2Y", 10.0), ("MORT2Y_LOW", 0.0), ("MORT2Y_HIGH", 20.0)]
    expected += [("MORT10Y", 30.0), ("MORT10Y_LOW", 20.0), ("MORT10Y_HIGH", 40.0)]
    assert [(concept, value) for concept, value, _ in numbers(document)] == expected


def test_change_is_measured_named_and_its_doubts_are_said() -> None:
    report = all_documents(cases.analysed(predicted=cases.risk(), change=cases.changed()))["measurements"]
    found = numbers(report)
    assert ("CHG_INTERVAL", 365.0, "d") in found
    assert ("CHG_HAA", 2.5, "%") in found
    assert ("CHY_VOLUME", 2.0, "cm3/a") in found
    said = next(text for text in texts(report) if text.startswith("Changes since study 1.2.1"))
    assert "Different scanner" in said


def test_a_short_interval_has_no_change_per_year() -> None:
    found = numbers(all_documents(cases.analysed(predicted=cases.risk(), change=cases.changed(30)))["measurements"])
    assert any(concept == "CHG_HAA" for concept, _, _ in found)
    assert not any(concept.startswith("CHY_") for concept, _, _ in found)


def test_another_prior_scan_makes_other_objects() -> None:
    alone, compared = (all_documents(cases.analysed(predicted=cases.risk(), change=c)) for c in (None, cases.changed()))
    assert alone["measurements"].SOPInstanceUID != compared["measurements"].SOPInstanceUID


FOLLOWED_UP = cases.analysed(predicted=cases.risk(), change=cases.changed(), trend=cases.scanned_before(3))


def test_prior_scans_are_listed_and_their_reports_are_other_evidence() -> None:
    report = all_documents(FOLLOWED_UP)["measurements"]
    lines = [text for text in texts(report) if " before (study" in text]
    assert len(lines) == 3
    assert lines[0].startswith("20230101, 3.0 years before (study 1.2.1): volume 4960 ml, -600 to -250 HU 6.5 %, ")
    assert lines[0].endswith("risk within 5 y 15 %. Not fully comparable: change-scanner.")
    assert lines[2].endswith("risk within 5 y 21 %.")
    others = report.PertinentOtherEvidenceSequence
    assert [str(study.StudyInstanceUID) for study in others] == ["1.2.1", "1.2.2", "1.2.3"][: len(others)]
    current = report.CurrentRequestedProcedureEvidenceSequence
    assert {str(study.StudyInstanceUID) for study in current} == {"1.2.3"}


def test_the_evidence_is_the_very_report_that_was_sent_for_the_prior_scan() -> None:
    before = cases.analysed(study_uid="1.2.1", predicted=cases.risk(), change=cases.changed())
    point = dataclasses.replace(FOLLOWED_UP.trend[0], version=before.version)
    (reference,) = prior_scans.evidence(dataclasses.replace(FOLLOWED_UP, trend=(point,)))
    assert reference.SOPInstanceUID == uids.sop_instance(MEASUREMENTS, "1.2.1", before)
    assert reference.SeriesInstanceUID == uids.series(MEASUREMENTS, "1.2.1", before)
    fetched = dataclasses.replace(point, stays_here=True)
    assert prior_scans.evidence(dataclasses.replace(FOLLOWED_UP, trend=(fetched,))) == []


def test_the_time_point_is_stated_in_each_group_where_prior_scans_are_known() -> None:
    report = all_documents(FOLLOWED_UP)["measurements"]
    assert [str(i.TextValue) for i in walk(report) if name(i) == "C2348792"] == ["Scan 4 of the known scans"] * 3
    alone = all_documents(FINDINGS)["measurements"]
    assert not any(name(i) == "C2348792" for i in walk(alone))
    assert "PertinentOtherEvidenceSequence" not in alone


def test_tracking_is_the_same_with_and_without_prior_scans() -> None:
    tracked = [
        [str(i.UID) for i in walk(all_documents(findings)["measurements"]) if name(i) == "112040"]
        for findings in (FINDINGS, FOLLOWED_UP)
    ]
    assert tracked[0] == tracked[1]


@pytest.mark.parametrize("key", ["segmentation", "measurements", "risk"])
def test_other_prior_scans_make_other_objects(key: str) -> None:
    fewer = dataclasses.replace(FOLLOWED_UP, trend=FOLLOWED_UP.trend[1:])
    again = dataclasses.replace(FOLLOWED_UP, timings_s={"encode": 1.0})
    made = [all_documents(findings)[key].SOPInstanceUID for findings in (FOLLOWED_UP, fewer, again)]
    assert made[0] == made[2] != made[1]


def before_the_first_number(item: Dataset) -> list[Dataset]:
    """What a reader of the tree meets first."""
    met = list(walk(item))
    return met[: next(k for k, one in enumerate(met) if one.ValueType == "NUM")]


@pytest.mark.parametrize("key", ["measurements", "risk"])
def test_the_worst_doubt_stands_before_any_number_and_in_each_group(key: str) -> None:
    flags = (
        Flag("contrast", "info", "contrast medium"),
        Flag("order-not-found", "warning", "no order"),
        Flag("thick-slices", "warning", "thick slices"),
        Flag("cut-off-base", "error", "the base is missing"),
    )
    document = all_documents(dataclasses.replace(FINDINGS, flags=flags))[key]
    doubts = [str(i.TextValue) for i in before_the_first_number(document) if name(i) == "QUALITYFLAG"]
    assert doubts == ["ERROR: the base is missing"] * 2
    groups = [i for i in walk(document) if i.ValueType == "CONTAINER" and name(i) == "125007"]
    assert groups
    for group in groups:
        assert [str(i.TextValue) for i in before_the_first_number(group) if name(i) == "QUALITYFLAG"] == doubts[:1]


def test_a_doubt_about_order_or_priors_is_none_about_the_numbers() -> None:
    findings = dataclasses.replace(FINDINGS, flags=(Flag("order-not-found", "warning", "no order"),))
    report = all_documents(findings)["measurements"]
    assert [str(i.TextValue) for i in walk(report) if name(i) == "QUALITYFLAG"] == ["WARNING: no order"]
    assert not [i for i in before_the_first_number(report) if name(i) == "QUALITYFLAG"]


def test_doubts_about_the_comparison_stand_in_the_group_that_holds_it() -> None:
    findings = dataclasses.replace(FINDINGS, flags=(), change=cases.changed())
    report = all_documents(findings)["measurements"]
    groups = [i for i in walk(report) if i.ValueType == "CONTAINER" and name(i) == "125007"]
    said = [[str(i.TextValue) for i in walk(group) if name(i) == "QUALITYFLAG"] for group in groups]
    assert said == [[], [], ["WARNING: Different scanner: was A, now B."]]


def test_every_group_has_an_image_of_its_own_structure() -> None:
    report = all_documents(FINDINGS)["measurements"]
    shown = [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in walk(report) if name(i) == "121200"]
    # The right box is in slices 2 to 5 (of 1 to 6), the left one in 3 to 5.
    assert shown == ["1.2.3.4.4", "1.2.3.4.4", "1.2.3.4.4"]


def test_numbers_have_the_decimals_that_a_reader_needs(documents: dict[str, Dataset]) -> None:
    written = {
        (name(i), i.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue): str(
            i.MeasuredValueSequence[0].NumericValue
        )
        for i in walk(documents["measurements"])
        if i.ValueType == "NUM"
    }
    assert written["118565006", "cm3"] == "4321"
    assert written["HAA600_250", "%"] == "12.5"
    assert written["ATTP15", "[hnsf'U]"] == "-930"


def test_attenuations_say_in_words_which_they_are(documents: dict[str, Dataset]) -> None:
    derived = [i for i in walk(documents["measurements"]) if i.ValueType == "NUM" and name(i) == "112031"]
    said = [str(c.TextValue) for i in derived for c in i.ContentSequence if name(c) == "121050"]
    assert len(said) == len(derived)
    assert said[0] == "Mean attenuation"


def test_a_risk_is_no_certainty_in_words() -> None:
    odd = dataclasses.replace(cases.risk(), horizons=(Horizon(1, 0.002, 0.0, 0.02), Horizon(5, 0.9996, 0.97, 1.0)))
    report = risk.encode(cases.synthetic(), cases.analysed(predicted=odd), cases.CONTEXT)
    said = [str(i.TextValue) for i in walk(report) if name(i) == "RISKWORDS"]
    assert said == [
        "Death from any cause within 1 year: <1 %, model spread <1 to 2 %",
        "Death from any cause within 5 years: >99 %, model spread 97 to >99 %",
    ]
    assert ("MORT5Y", 99.96, "%") in numbers(report)


def test_a_single_model_has_no_spread() -> None:
    alone = dataclasses.replace(cases.risk(), horizons=(Horizon(1, 0.1, 0.1, 0.1),))
    report = risk.encode(cases.synthetic(), cases.analysed(predicted=alone), cases.CONTEXT)
    assert [str(i.TextValue) for i in walk(report) if name(i) == "RISKWORDS"] == [
        "Death from any cause within 1 year: 10 %"
    ]


def test_the_change_is_said_in_words_with_points_and_repeatability() -> None:
    said = texts(all_documents(cases.analysed(predicted=cases.risk(), change=cases.changed()))["measurements"])
    assert any(
        t.startswith("Compared with the study of 2025-01-01 (1.0 years before), high attenuation rose") for t in said
    )
    assert any("+2.5 points, 10.0 -> 12.5 % (+2.5 points a year)" in t for t in said)
    assert any("Chong 2011" in t for t in said)
