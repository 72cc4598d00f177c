"""The published table of numbers: as the code has it, and as the reports are."""

import csv
from dataclasses import replace

import pytest

from dicomnode.analysis.findings import PopulationDistance
from dicomnode.report import concepts
from tests.conftest import ROOT
from tests.helpers import report_cases as cases
from tests.unit.report.sr.test_frame import all_documents, walk

DOCS = ROOT / "docs" / "radiologist"


@pytest.mark.parametrize(("name", "text"), [("concepts.csv", concepts.as_csv()), ("concepts.md", concepts.as_page())])
def test_the_published_table_is_the_code_s(name: str, text: str) -> None:
    assert (DOCS / name).read_text("utf-8") == text, f"write it again: see CONTRIBUTING.md ({name})"


def test_every_number_of_the_reports_is_in_the_table_with_its_unit() -> None:
    with (DOCS / "concepts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = {(row["code"], row["scheme"], row["derivation"].partition(" ")[0]): row["unit"] for row in rows}
    assert len(table) == len(rows)
    findings = cases.analysed(predicted=cases.risk(), change=cases.changed(), trend=cases.scanned_before(2))
    documents = all_documents(replace(findings, population=PopulationDistance(0.4, 1.1, 42.0, outside=False)))
    used = {}
    for item in (i for key in ("measurements", "risk") for i in walk(documents[key]) if i.ValueType == "NUM"):
        concept = item.ConceptNameCodeSequence[0]
        modifiers = [m for m in item.get("ContentSequence", ()) if m.ConceptNameCodeSequence[0].CodeValue == "121401"]
        derivation = str(modifiers[0].ConceptCodeSequence[0].CodeValue) if modifiers else ""
        unit = str(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue)
        used[str(concept.CodeValue), str(concept.CodingSchemeDesignator), derivation] = unit
    assert used == table
