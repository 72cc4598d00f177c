"""What is remembered of labels finds what a look into each label finds, and follows every change of them."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from dicomnode.dicomweb import names
from dicomnode.dicomweb.names import StudyNames, _Column
from dicomnode.network.matching import value_matches
from dicomnode.store.catalog import web_holdings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label, Unlabelled
from dicomnode.store.catalog.web_holdings import WebWanted
from tests.unit.store.catalog.conftest import catalog, url
from tests.unit.store.catalog.test_web_holdings import instance

__all__ = ["catalog", "url"]

_LETTERS = st.text("aAbß^= *?\\", max_size=8)


def receive(catalog: Catalog, study: str, at: float, name: str | None, generation: int = 1) -> None:
    catalog.record(instance(study, int(at), at=at))
    if name != "":
        catalog.note_label(Unlabelled(study, generation, at, "/x"), Label("P", patient_name=name))


def found(catalog: Catalog, known: StudyNames, **keys: str) -> list[str]:
    named = known.named(catalog, {keyword: (value,) for keyword, value in keys.items()})
    return [one.study_uid for one in catalog.web_studies(WebWanted(named=named))]


@given(st.sampled_from(("PN", "LO", "DA")), st.lists(_LETTERS, max_size=6), st.lists(_LETTERS, min_size=1, max_size=2))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_column_finds_what_matching_finds(vr: str, values: list[str], wanted: list[str]) -> None:
    column = _Column(vr)
    for value in values:
        column.add(value)
    expected = [any(value_matches(vr, wanted, one) for one in value.split("\\")) for value in values]
    assert column.rows_with(wanted).tolist() == expected


def test_it_follows_labels_as_they_are_made_changed_and_studies_dropped(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = StudyNames()
    assert found(catalog, known, PatientName="ad*") == []
    receive(catalog, "1.2.1", 10.0, "Adler^Anna")
    receive(catalog, "1.2.2", 20.0, "Brandt^Ben=山田^太郎=やまだ^たろう")
    assert found(catalog, known, PatientName="ad*") == ["1.2.1"]
    assert found(catalog, known, PatientName="山田*") == ["1.2.2"]
    # Without a label, or with one that did not read a name, a study may be anybody's.
    receive(catalog, "1.2.3", 30.0, "")
    receive(catalog, "1.2.4", 40.0, None)
    assert found(catalog, known, PatientName="ad*") == ["1.2.4", "1.2.3", "1.2.1"]
    receive(catalog, "1.2.3", 31.0, "Costa^Clara")
    receive(catalog, "1.2.4", 41.0, "Adler^Anna")
    receive(catalog, "1.2.1", 50.0, "Dubois^Anna", generation=2)
    assert found(catalog, known, PatientName="ad*") == ["1.2.4"]
    assert found(catalog, known, PatientName="*^anna") == ["1.2.1", "1.2.4"]
    catalog.settle("1.2.4", 60.0, "two patients")
    assert found(catalog, known, PatientName="*^anna") == ["1.2.1"]
    # As many as there are, however they are looked up, and after what is outdated was thrown away.
    monkeypatch.setattr(web_holdings, "_FEW", 0)
    assert found(catalog, known, PatientName="*^anna") == ["1.2.1"]
    monkeypatch.setattr(names, "_MOST_OUTDATED", -100)
    assert found(catalog, known, PatientName="*^anna") == ["1.2.1"]
    assert len(known._noted) == 4


def test_a_label_that_is_noted_meanwhile_may_match(catalog: Catalog) -> None:
    receive(catalog, "1.2.1", 10.0, "Adler^Anna")
    named = StudyNames().named(catalog, {"PatientName": ("ad*",)})
    receive(catalog, "1.2.1", 11.0, "Adler^Anna", generation=2)
    assert [one.study_uid for one in catalog.web_studies(WebWanted(named=named))] == ["1.2.1"]
    assert [one.study_uid for one in catalog.web_studies(WebWanted(named=replace(named, known=2)))] == []


def test_a_search_reads_by_index_what_it_finds(catalog: Catalog) -> None:
    """With 100,000 studies that is the difference between some milliseconds and a second."""
    known = StudyNames()
    for number in range(5):
        receive(catalog, f"1.2.{number}", 10.0 + number, f"Adler^{number}")
    known.look(catalog)
    asked: list[tuple[str, Any]] = []
    event.listen(catalog._engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    assert found(catalog, known, PatientName="adler^1") == ["1.2.1"]
    queries = [one for one in asked if one[0].startswith("SELECT")]
    explain = "EXPLAIN QUERY PLAN" if catalog._is_sqlite else "EXPLAIN"
    plans: list[str] = []
    with catalog._engine.connect() as connection:
        if not catalog._is_sqlite:
            # With five rows it would rather read them all: whether an index can be used is the question.
            for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
                connection.exec_driver_sql(f"SET {setting} = off")
        for statement, parameters in queries:
            plans += [str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)]
    if catalog._is_sqlite:
        assert "SEARCH study_labels USING INDEX study_labels_noted (noted=?)" in plans
    assert sum("study_labels_noted" in plan for plan in plans) >= 3, plans
    whole = [plan for plan in plans if re.search(r"^SCAN (studies|study_labels|instances)|Seq Scan", plan)]
    assert whole == [], plans
