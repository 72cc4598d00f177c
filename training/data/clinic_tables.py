"""A clinic's own tables, by Patient ID and true dates, as a registry needs them: pseudonyms and shifted dates.

Their `patient` is the Patient ID as it stands in the images. A column `issuer` beside it holds the Issuer of Patient
ID, where the images name one: the same ID from two issuers is two patients, and so it is with an issuer and without
one. The text is hashed in UTF-8, as the images' own is (`from_dicom`); a node hashes the bytes of the images, so the
two agree on IDs in ASCII or UTF-8.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from dicomnode.registry_format.identity import PATIENT_ID_DIGITS, patient_hash
from dicomnode.registry_format.pseudonyms import Pseudonyms
from dicomnode.registry_format.rows import FIRST_DAY
from dicomnode.registry_format.tables import write_csv
from training.data import csv_tables
from training.data.follow_up import COVARIATES, OUTCOMES

#: The tables' columns, by the name of their file in the registry.
TABLES: Mapping[str, Mapping[str, csv_tables.Parse]] = {"outcomes": OUTCOMES, "covariates": COVARIATES}
_ISSUER: Mapping[str, csv_tables.Parse] = {"issuer": csv_tables.words}


def text_hash(patient_id: str, issuer: str) -> str:
    """Hash a patient by the texts of ID and issuer; "" for no issuer."""
    return patient_hash(patient_id.encode(), issuer.encode())


def read(path: Path, columns: Mapping[str, csv_tables.Parse], names: Pseudonyms) -> csv_tables.CsvTable:
    """Read a clinic's table; its `patient` are pseudonyms then, so that no message names anybody. Dates stay true.

    Args:
        path: the file.
        columns: `follow_up.OUTCOMES` or `follow_up.COVARIATES`; `issuer` may stand beside them.
        names: the registry's pseudonyms.

    Raises:
        UsageError: the file does not fit; with row, column and cure.
    """
    table = _read(path, columns)
    patients: list[object] = [names.patient(one) for one in _hashes(table)]
    known = csv_tables.CsvTable(path, {**{k: table.columns[k] for k in columns}, "patient": patients})
    for column in columns:
        for index, value in enumerate(known.columns[column]):
            if isinstance(value, date) and value < FIRST_DAY:
                raise known.refuse(index, column, f"lies before {FIRST_DAY.year}", "correct it")
    return known


def check_issuers(path: Path, columns: Mapping[str, csv_tables.Parse], in_images: Mapping[str, str]) -> None:
    """Refuse a table that names an issuer where the images name none, or the other way round, for the same Patient ID.

    Such a row would be passed over in silence: it is another patient than the images'.

    Args:
        path: the file.
        columns: as in `read`.
        in_images: the issuer's text ("" for none) by the patients' hashes.

    Raises:
        UsageError: with row and cure.
    """
    table = _read(path, columns)
    rows = _hashes(table)
    without_row = in_images.keys() - set(rows)
    for index, row in enumerate(rows):
        if row in in_images:
            continue
        near = sorted(in_images[one] for one in without_row if _differ_in_having_an_issuer(one, row))
        if near:
            stated = table.columns["issuer"][index] if "issuer" in table.columns else ""
            wrong, cure = "is given, and the images name no issuer of this Patient ID", "leave it empty"
            if not stated:
                issuers = ", ".join(map(repr, near))
                wrong = f"is empty or not there, and the images name one for this Patient ID ({issuers})"
                cure = "give it in a column issuer"
            raise csv_tables.refusal(path, index + csv_tables.FIRST_ROW, "issuer", stated, wrong, cure)


def pseudonymise(source: Path, out: Path, columns: Mapping[str, csv_tables.Parse], names: Pseudonyms) -> Path:
    """Write a clinic's table as the registry needs it; rows stay in their order.

    Args:
        source: the file.
        out: where to write.
        columns: as in `read`.
        names: the registry's pseudonyms.

    Raises:
        UsageError: the file does not fit.
    """
    table = read(source, columns, names)
    rows = [{k: table.columns[k][index] for k in columns} for index in range(len(table))]
    write_csv(out, tuple(columns), ({k: _shifted(v, row, names) for k, v in row.items()} for row in rows))
    return out


def _shifted(value: object, row: Mapping[str, object], names: Pseudonyms) -> object:
    return names.shifted(value, str(row["patient"])) if isinstance(value, date) else value


def _read(path: Path, columns: Mapping[str, csv_tables.Parse]) -> csv_tables.CsvTable:
    return csv_tables.read(path, {**columns, "patient": _patient_id}, _ISSUER)


def _hashes(table: csv_tables.CsvTable) -> list[str]:
    ids = table.columns["patient"]
    issuers = table.columns.get("issuer", [""] * len(ids))
    return [text_hash(str(one), str(issuer)) for one, issuer in zip(ids, issuers, strict=True)]


def _differ_in_having_an_issuer(one: str, other: str) -> bool:
    same_id = one[:PATIENT_ID_DIGITS] == other[:PATIENT_ID_DIGITS]
    return same_id and len(one) != len(other)


def _patient_id(text: str) -> str:
    if not text:
        raise ValueError("is empty: give the Patient ID as it stands in the images")
    return text
