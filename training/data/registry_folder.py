"""The registry folder (`dicomnode.registry_format`) read and checked: scans, and the features measured of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from dicomnode.analysis.risk.scan_inputs import MM_RANGE
from dicomnode.errors import UsageError
from dicomnode.registry_format.description import (
    NAME,
    RADIOMICS_SPACING_MM,
    holds_lungs_alone,
    read_description,
)
from dicomnode.registry_format.provenance import Provenance
from dicomnode.registry_format.rows import SCAN_COLUMNS
from training.data import csv_tables

FEATURE_PREFIXES = ("quantities.", "radiomics.")


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("leaves the registry folder: give a path relative to it")
    return text


_MM = csv_tables.maybe(csv_tables.number(*MM_RANGE))
_PARSERS: Mapping[str, csv_tables.Parse] = {
    "patient": csv_tables.name,
    "scan": csv_tables.name,
    "date": csv_tables.day,
    "age_years": csv_tables.maybe(csv_tables.number(0, 120)),
    "sex": csv_tables.one_of("F", "M", "O", ""),
    "manufacturer": csv_tables.words,
    "model": csv_tables.words,
    "kernel": csv_tables.words,
    "kernel_family": csv_tables.one_of("lung", "medium", "soft", "unknown", ""),
    "slice_thickness_mm": _MM,
    "spacing_z_mm": _MM,
    "segmenter": csv_tables.words,
    "software_version": csv_tables.words,
    "algorithm_digest": csv_tables.words,
    "volume": _inside,
}
SCANS: Mapping[str, csv_tables.Parse] = {column: _PARSERS[column] for column in SCAN_COLUMNS}


@dataclass(frozen=True)
class Registry:
    """A registry.

    Attributes:
        folder: where it lies; the scans' `volume` is relative to it.
        about: the content of registry.toml.
        scans: scans.csv in its order; numbers float64 (NaN: not known), `date` datetime64, texts "" if not known.
        features: a row a scan of `scans`, NaN where the registry has no value; no column where it has none at all.
        sha256: over the tables and the names of the volumes, not over the volumes.
    """

    folder: Path
    about: Mapping[str, object]
    scans: pd.DataFrame
    features: pd.DataFrame
    sha256: str

    @property
    def synthetic(self) -> bool:
        """Whether the scans are phantoms."""
        return self.about["made_by"] == "synthetic"

    @property
    def imported(self) -> bool:
        """Whether its numbers come from a table that somebody else has measured (`training import`)."""
        return self.about["made_by"] == "import"

    @property
    def provenance(self) -> Provenance:
        """Who the patients are, as registry.toml states it."""
        return Provenance.of(self.about)

    @property
    def lungs_alone(self) -> bool:
        """Whether its volumes are cut to the lungs, with -1024 HU around them: nothing can be measured on these."""
        return holds_lungs_alone(self.about)

    @property
    def radiomics_spacing_mm(self) -> float:
        """The resolution that the radiomics in `features` were measured at."""
        stated = self.about.get("radiomics_spacing_mm", RADIOMICS_SPACING_MM)
        assert isinstance(stated, int | float)
        return float(stated)


def read(folder: Path) -> Registry:
    """Read a registry folder.

    Raises:
        UsageError: something is missing or does not fit, with file, row, column, value and cure.
    """
    about = read_description(folder)
    table = csv_tables.read(folder / "scans.csv", SCANS)
    _check_scans(table, folder)
    columns = dict(table.columns)
    scans = pd.DataFrame({name: columns[name] for name in SCANS})
    scans["date"] = pd.to_datetime(scans["date"])
    for name in ("age_years", "slice_thickness_mm", "spacing_z_mm"):
        scans[name] = scans[name].astype("float64")
    features = _read_features(folder / "features.parquet", scans["scan"])
    digest = hashlib.sha256()
    for name in (NAME, "scans.csv", "features.parquet"):
        path = folder / name
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return Registry(folder, about, scans, features, digest.hexdigest())


def _check_scans(table: csv_tables.CsvTable, folder: Path) -> None:
    first: dict[object, int] = {}
    for index, scan in enumerate(table.columns["scan"]):
        if scan in first:
            where = f"stands in row {first[scan] + csv_tables.FIRST_ROW} already"
            raise table.refuse(index, "scan", where, "each scan has one row, leave one of the two")
        first[scan] = index
    for index, volume in enumerate(table.columns["volume"]):
        path = folder / str(volume)
        if volume and path.is_symlink() and not path.exists():
            wrong = f"is a link to {path.readlink()}, which does not exist"
            raise table.refuse(index, "volume", wrong, "copy the files that the links stand for (cp -L)")
        if volume and not path.is_file():
            raise table.refuse(index, "volume", "is no file", "copy the whole registry, or leave the column empty")


def _read_features(path: Path, scans: "pd.Series[str]") -> pd.DataFrame:
    """Return the features in the order of `scans`."""
    if not path.is_file():
        return pd.DataFrame(index=range(len(scans)))
    try:
        stored = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UsageError(f"{path} is not a Parquet file ({error}): export the registry again") from None
    if "scan" not in stored:
        raise UsageError(f"{path} has no column 'scan': export the registry again")
    for name, column in stored.drop(columns="scan").items():
        if not str(name).startswith(FEATURE_PREFIXES):
            raise UsageError(f"{path}, column {name}: features begin with {' or '.join(FEATURE_PREFIXES)}: rename it")
        if column.dtype != np.float64:
            raise UsageError(f"{path}, column {name}: its type is {column.dtype}, not float64: export it again")
        if (odd := np.flatnonzero(np.isinf(column.to_numpy()))).size:
            raise csv_tables.refusal(
                path, int(odd[0]) + 1, str(name), "inf", "is no finite value", "leave it empty (NaN)"
            )
    for wrong, cure in (
        (stored["scan"].duplicated(), "stands twice: leave one of the two rows"),
        (~stored["scan"].isin(scans), "is not in scans.csv: export the two together"),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong.to_numpy())[0])
            text, _, help_ = cure.partition(": ")
            raise csv_tables.refusal(path, row + 1, "scan", stored["scan"].iloc[row], text, help_)
    return stored.set_index("scan").reindex(scans).reset_index(drop=True)
