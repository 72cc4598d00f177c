"""What DICOMweb searches, on both databases: which studies may match, in which order, and what they hold."""

from dataclasses import replace

import pytest

from dicomnode.store.catalog import web_holdings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label, Unlabelled
from dicomnode.store.catalog.web_holdings import WebWanted
from dicomnode.store.records import Instance


def instance(study: str, number: int, modality: str = "CT", at: float = 100.0, series: int = 1) -> Instance:
    return Instance(
        sop_instance_uid=f"{study}.{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        study_uid=study,
        series_uid=f"{study}.{series}",
        path=f"/spool/{study}/{series}.{number}.dcm",
        sha256=f"{number:064}",
        size=500_000,
        received_at=at,
        association_id=None,
        patient_hash="a" * 64,
        modality=modality,
    )


def found(catalog: Catalog, wanted: WebWanted) -> list[str]:
    return [one.study_uid for one in catalog.web_studies(wanted)]


def test_studies_of_one_moment_are_each_told_once_however_long_a_page_is(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        catalog.record(instance(f"1.2.{number}", 1, at=7.1 if number < 4 else 3.3))
    for length in (1, 2, 5, 500):
        monkeypatch.setattr(web_holdings, "_AT_ONCE", length)
        assert found(catalog, WebWanted()) == ["1.2.3", "1.2.2", "1.2.1", "1.2.0", "1.2.4"]


def test_which_studies_may_match(catalog: Catalog) -> None:
    for study, modality, at in (("1.2.1", "CT", 1.0), ("1.2.2", "MR", 2.0), ("1.2.3", "CT", 3.0), ("1.2.4", "US", 4.0)):
        catalog.record(replace(instance(study, 1, modality, at), patient_hash=f"{study[-1]}" * 64))
    labels = {"1.2.1": ("20260101", "A-1"), "1.2.2": ("20260202", "A-2"), "1.2.3": ("2026.03.03", "A-3")}
    for study, (date, accession) in labels.items():
        catalog.note_label(Unlabelled(study, 1, 5.0, None), Label("P", "", accession, date, patient_name="N"))
    # What has no label, or one without a date, may match.
    assert found(catalog, WebWanted(dates=("20260201", ""))) == ["1.2.4", "1.2.3", "1.2.2"]
    assert found(catalog, WebWanted(dates=("", "20260131"))) == ["1.2.4", "1.2.3", "1.2.1"]
    assert found(catalog, WebWanted(accession_number="A-2")) == ["1.2.4", "1.2.2"]
    assert found(catalog, WebWanted(modalities=("MR", "CT"))) == ["1.2.3", "1.2.2", "1.2.1"]
    assert found(catalog, WebWanted(series_uids=("1.2.2.1",))) == ["1.2.2"]
    assert found(catalog, WebWanted(instance_uids=("1.2.3.1.1", "1.2.1.1.1"))) == ["1.2.3", "1.2.1"]
    assert found(catalog, WebWanted(study_uids=("1.2.1", "9.9"))) == ["1.2.1"]
    assert found(catalog, WebWanted(patient_id="somebody else")) == []
    catalog.settle("1.2.1", 10.0, None)
    catalog.set_state("1.2.1", 1, "analysed", None, now=11.0)
    assert [(s.study_uid, s.by_images) for s in catalog.web_studies(WebWanted(modalities=("MR", "SR")))] == [
        ("1.2.2", True),
        ("1.2.1", False),
    ]
    catalog.settle("1.2.3", 10.0, "two patients")
    assert "1.2.3" not in found(catalog, WebWanted())


def test_what_studies_hold(catalog: Catalog) -> None:
    for number, modality, series in ((1, "CT", 1), (2, "CT", 1), (3, "SR", 2)):
        catalog.record(instance("1.2.1", number, modality, 1.0, series))
    catalog.record(instance("1.2.2", 1, "MR", 2.0))
    catalog.settle("1.2.1", 10.0, None)
    catalog.set_state("1.2.1", 1, "analysed", None, now=11.0)
    figures = catalog.web_figures(["1.2.1", "1.2.2", "1.2.3"])
    one = figures["1.2.1"]
    assert (one.series, one.instances, set(one.modalities), one.standing) == (2, 3, {"CT", "SR"}, 1)
    assert (one.path, figures["1.2.2"].standing, set(figures)) == ("/spool/1.2.1/1.1.dcm", None, {"1.2.1", "1.2.2"})
    assert catalog.web_standing(["1.2.1", "1.2.2"]) == {"1.2.1": 1}
    assert [i.sop_instance_uid for i in catalog.web_instances(["1.2.1"])] == ["1.2.1.1.1", "1.2.1.1.2", "1.2.1.2.3"]


def test_programs_come_and_go(catalog: Catalog) -> None:
    assert catalog.add_console_token("viewer", "a" * 64, "reader", "", 1.0)
    assert not catalog.add_console_token("viewer", "b" * 64, "reader", "", 1.0)
    catalog.see_console_token("viewer", 2.0)
    known = catalog.console_token("a" * 64)
    assert known is not None and (known.name, known.used_at) == ("viewer", 2.0)
    assert catalog.console_tokens() == [known] and catalog.console_token("b" * 64) is None
    assert catalog.remove_console_token("viewer") and not catalog.remove_console_token("viewer")
