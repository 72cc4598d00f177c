"""`findings.json`: the contract with scripts."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.analysis.findings import (
    ChosenSeries,
    Findings,
    Flag,
    Horizon,
    Lungs,
    Quantities,
    Radiomics,
    Reason,
    RejectedSeries,
    Risk,
    SliceRelevance,
    VolumeMl,
)

QUANTITIES = Quantities(-800.0, 150.0, 2.5, 10.0, -950.0, -920.0, -850.0, -700.0, -400.0, 6.5, 2.0)
FINDINGS = Findings(
    status="analysed",
    series=ChosenSeries("1.2", "1.2.3", 300, (1.0, 0.7, 0.7), "B60f", "thin; the only suitable series"),
    rejected=(RejectedSeries("1.2.4", "CT", 1, (Reason("localizer", "Image Type is LOCALIZER."),)),),
    flags=(Flag("contrast", "info", "Contrast was given."),),
    lungs=Lungs("classical", "1", VolumeMl(4000.0, 1800.0, 2200.0), "morphology"),
    quantities={"lungs": QUANTITIES, "left": QUANTITIES, "right": QUANTITIES},
    radiomics=Radiomics({"setting": {"binWidth": 25}}, {"lungs": {"original_firstorder_Mean": -800.0}}),
    risk=Risk("demo", "ab" * 32, "synthetic-demo", (Horizon(1, 0.1, 0.05, 0.2),), "1", "how far 16 heads disagree"),
    timings_s={"load": 1.0},
    software_version="0.1.0",
    input_digest="cd" * 32,
    algorithm_digest="ef" * 32,
)


def test_there_and_back() -> None:
    assert Findings.from_json(FINDINGS.to_json()) == FINDINGS
    refused = Findings("refused", None, FINDINGS.rejected)
    assert Findings.from_json(refused.to_json()) == refused


def test_the_keys_that_scripts_rely_on() -> None:
    found = json.loads(FINDINGS.to_json())
    assert {"status", "series", "rejected", "flags", "lungs", "quantities", "radiomics", "risk", "timings_s"} <= set(
        found
    )
    assert {"study_uid", "series_uid", "slices", "spacing_mm", "kernel", "why_chosen"} <= set(found["series"])
    assert set(found["rejected"][0]) >= {"series_uid", "modality", "slices", "reasons"}
    assert set(found["rejected"][0]["reasons"][0]) >= {"code", "text"}
    assert set(found["flags"][0]) >= {"code", "severity", "text"}
    assert set(found["lungs"]) >= {"segmenter", "segmenter_version", "volume_ml", "family"}
    assert set(found["lungs"]["volume_ml"]) >= {"total", "left", "right"}
    assert set(found["quantities"]["lungs"]) >= {
        "mean_hu", "sd_hu", "skewness", "kurtosis", "p05_hu", "p15_hu", "p50_hu", "p85_hu", "p95_hu", "haa_percent",
        "laa950_percent",
    }  # fmt: skip
    assert set(found["radiomics"]) >= {"settings", "features"}
    assert set(found["risk"]) >= {"bundle", "bundle_sha256", "intended_use", "horizons"}
    assert set(found["risk"]["horizons"][0]) >= {"years", "probability", "lower", "upper"}


def test_a_number_that_is_none_is_refused() -> None:
    broken = replace(FINDINGS, quantities={"lungs": replace(QUANTITIES, skewness=float("nan"))})
    with pytest.raises(ValueError, match="JSON"):
        broken.to_json()


def test_a_risk_s_later_parts_go_there_and_back_and_may_be_missing() -> None:
    assert FINDINGS.risk is not None
    later = replace(
        FINDINGS.risk,
        slice_relevance=(SliceRelevance(-120.5, 0.25), SliceRelevance(-80.0, 0.75)),
        scan_codes={"resnet18-0.safetensors": (0.5, -1.25)},
        flags=(Flag("scanner-unknown", "warning", "Different scanner."),),
    )
    assert Findings.from_json(replace(FINDINGS, risk=later).to_json()).risk == later
    old = json.loads(FINDINGS.to_json())
    for key in ("slice_relevance", "scan_codes", "flags"):
        del old["risk"][key]
    assert Findings.from_json(json.dumps(old)) == FINDINGS


@pytest.mark.parametrize(("segmenter", "family"), [("classical", "morphology"), ("lungmask-R231", "network")])
def test_findings_of_before_do_not_name_the_family_of_the_segmenter(segmenter: str, family: str) -> None:
    old = json.loads(FINDINGS.to_json())
    old["lungs"]["segmenter"] = segmenter
    del old["lungs"]["family"]
    assert FINDINGS.lungs is not None
    expected = replace(FINDINGS.lungs, segmenter=segmenter, family=family)  # type: ignore[arg-type]
    assert Findings.from_json(json.dumps(old)).lungs == expected


def test_findings_of_version_0_1_0_lack_what_came_later() -> None:
    old = json.loads(FINDINGS.to_json())
    for key in ("change", "trend", "surroundings_digest"):
        del old[key]
    for key in ("study_date", "kernel_family", "contrast", "part"):
        del old["series"][key]
    del old["quantities"]["lungs"]["volume_ml"]
    assert Findings.from_json(json.dumps(old)) == FINDINGS


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_digit(number: float) -> None:
    found = replace(FINDINGS, timings_s={"load": number})
    assert Findings.from_json(found.to_json()).to_json() == found.to_json()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"status": "analysed", "lungs": {"segmenter": "a"}}'])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        Findings.from_json(text)


def test_a_refusal_to_read_quotes_nothing_of_the_file() -> None:
    broken = json.loads(FINDINGS.to_json())
    broken["series"]["study_date"], broken["series"]["slices"] = "20260101", "1.2.840"
    with pytest.raises(ValueError, match=r"^series\.slices: ") as refusal:
        Findings.from_json(json.dumps(broken))
    assert "1.2.840" not in str(refusal.value)
    assert "20260101" not in str(refusal.value)
