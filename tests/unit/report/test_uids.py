"""UIDs follow from what an object is about, and from nothing else."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from dicomnode.analysis.findings import Reason, RejectedSeries
from dicomnode.report import uids
from dicomnode.report.context import MEASUREMENTS, RISK
from tests.helpers import report_cases as cases


@given(st.lists(st.text() | st.binary()))
def test_every_uid_is_valid_and_repeats(parts: list[str | bytes]) -> None:
    uid = uids.derive(*parts)
    assert uid == uids.derive(*parts)
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert UID(uid).is_valid


def test_parts_do_not_run_into_each_other() -> None:
    assert uids.derive("a", "bc") != uids.derive("ab", "c")


@pytest.mark.parametrize("field", ["input_digest", "algorithm_digest", "software_version"])
def test_another_version_is_another_object(field: str) -> None:
    first = cases.analysed()
    second = dataclasses.replace(first, **{field: "other"})
    assert uids.sop_instance(RISK, "1.2", first) != uids.sop_instance(RISK, "1.2", second)
    assert uids.series(RISK, "1.2", first) != uids.series(RISK, "1.2", second)


def test_instances_series_kinds_and_studies_differ() -> None:
    findings = cases.analysed()
    made = {
        uids.sop_instance(RISK, "1.2", findings),
        uids.series(RISK, "1.2", findings),
        uids.sop_instance(MEASUREMENTS, "1.2", findings),
        uids.sop_instance(RISK, "1.3", findings),
    }
    assert len(made) == 4


def test_what_an_analysis_took_does_not_change_its_uids() -> None:
    findings = cases.analysed()
    slower = dataclasses.replace(findings, timings_s={"lungs": 99.0})
    assert uids.sop_instance(RISK, "1.2", findings) == uids.sop_instance(RISK, "1.2", slower)


def test_a_refusal_for_other_reasons_is_another_object() -> None:
    first = cases.refused()
    second = dataclasses.replace(first, rejected=(RejectedSeries("1.2", "CT", 3, (Reason("gap", "a gap"),)),))
    assert uids.sop_instance(RISK, "1.2", first) != uids.sop_instance(RISK, "1.2", second)


def test_tracking_joins_studies_and_parts_structures_and_patients() -> None:
    anna, berta = (b"patient", b"1", b"HOSP"), (b"patient", b"1", b"OTHER")
    assert uids.tracking(anna, "right lung") == uids.tracking(list(anna), "right lung")
    assert len({uids.tracking(p, s) for p in (anna, berta) for s in ("right lung", "left lung", "lungs")}) == 6  # type: ignore[arg-type]


def test_the_device_changes_with_the_algorithm() -> None:
    assert uids.device("a") != uids.device("b")
