"""The published schema of findings.json is that of the records, says all that it names, and takes real findings."""

import json
from dataclasses import replace

import jsonschema
import pytest
from pydantic import TypeAdapter

from dicomnode.analysis.findings import Findings, Reason, RejectedSeries
from dicomnode.conformance import findings_schema, sample_findings
from tests.conftest import ROOT


def _invalid(findings: Findings, **changes: object) -> list[str]:
    validator = jsonschema.Draft202012Validator(findings_schema.build())
    return [error.message for error in validator.iter_errors({**json.loads(findings.to_json()), **changes})]


def test_the_committed_schema_is_the_codes() -> None:
    committed = (ROOT / findings_schema.COMMITTED).read_text("utf-8")
    assert committed == findings_schema.text(), (
        f"run `dicomnode conformance --findings-schema --out {findings_schema.COMMITTED}` and look at the difference"
    )


def test_every_key_has_its_meaning_and_no_meaning_lacks_its_key() -> None:
    made = TypeAdapter(Findings).json_schema(mode="serialization")
    records = {**made["$defs"], "Findings": made}
    keys = {name: set(record["properties"]) for name, record in records.items()}
    assert {name: set(of_record) for name, of_record in findings_schema.MEANINGS.items()} == keys


@pytest.mark.parametrize("key", ["mean_hu", "volume_ml", "haa_percent", "interval_days", "noise_hu", "spacing_mm"])
def test_a_key_with_a_unit_states_it(key: str) -> None:
    unit = {"hu": "HU", "ml": "ml", "percent": "%", "days": "ays", "mm": "mm"}[key.rpartition("_")[2]]
    stated = [of_record[key] for of_record in findings_schema.MEANINGS.values() if key in of_record]
    assert stated
    assert all(unit in words for words in stated)


def test_it_takes_findings_of_every_kind() -> None:
    jsonschema.Draft202012Validator.check_schema(findings_schema.build())
    rejected = (RejectedSeries("1.2.3.4", "MR", 20, (Reason("modality", "MR, not CT"),)),)
    for findings in (
        sample_findings.least(),
        sample_findings.complete(),
        Findings("refused", rejected=rejected),
        replace(sample_findings.complete(), revision="2"),
    ):
        assert _invalid(findings) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("status", "perhaps"), ("flags", {}), ("quantities", {"lungs": {"mean_hu": "-800"}}), ("risk", 0.2)],
)
def test_it_refuses_what_is_no_findings(key: str, value: object) -> None:
    assert _invalid(sample_findings.complete(), **{key: value}) != []
