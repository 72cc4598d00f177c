"""The registry folder read and checked: scans, and the features that the node has already measured.

```
registry.toml       format, made_by, created, software_version, algorithm_digest; radiomics_spacing_mm where it is not
                    the node's 1
scans.csv           one row a scan (see `SCANS`); dates are shifted by a constant of each patient
features.parquet    scan, quantities.<region>.<name>, radiomics.<region>.<feature>; may be missing
```
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from dicomnode.errors import UsageError
from training.data import csv_tables

FORMAT = 1
#: Of each registry that a node exports.
NODE_RADIOMICS_SPACING_MM = 1.0
FEATURE_PREFIXES = ("quantities.", "radiomics.")


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("leaves the registry folder: give a path relative to it")
    return text


_MM = csv_tables.maybe(csv_tables.number(0.01, 100))
SCANS: Mapping[str, csv_tables.Parse] = {
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
    def by_node(self) -> bool:
        """Whether a node exported it: its volumes are then cut to the lungs, with -1024 HU around them."""
        return self.about["made_by"] == "node"

    @property
    def radiomics_spacing_mm(self) -> float:
        """The resolution that the radiomics in `features` were measured at."""
        stated = self.about.get("radiomics_spacing_mm", NODE_RADIOMICS_SPACING_MM)
        assert isinstance(stated, int | float)
        return float(stated)


def read(folder: Path) -> Registry:
    """Read a registry folder.

    Raises:
        UsageError: something is missing or does not fit, with file, row, column, value and cure.
    """
    about = _read_about(folder / "registry.toml")
    table = csv_tables.read(folder / "scans.csv", SCANS)
    _check_scans(table, folder)
    columns = dict(table.columns)
    scans = pd.DataFrame({name: columns[name] for name in SCANS})
    scans["date"] = pd.to_datetime(scans["date"])
    for name in ("age_years", "slice_thickness_mm", "spacing_z_mm"):
        scans[name] = scans[name].astype("float64")
    features = _read_features(folder / "features.parquet", scans["scan"])
    digest = hashlib.sha256()
    for name in ("registry.toml", "scans.csv", "features.parquet"):
        path = folder / name
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return Registry(folder, about, scans, features, digest.hexdigest())


def _read_about(path: Path) -> dict[str, object]:
    if not path.is_file():
        cure = "give a folder made by `dicomnode registry export` or `training synthetic`"
        raise UsageError(f"{path} is missing, so this is no registry: {cure}")
    try:
        about = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not TOML, not UTF-8
        raise UsageError(f"{path} is not TOML: {error}") from None
    if about.get("format") != FORMAT:
        raise UsageError(f"{path}: format is {about.get('format')!r}, this version reads {FORMAT}: export it again")
    spacing = about.get("radiomics_spacing_mm", NODE_RADIOMICS_SPACING_MM)
    if isinstance(spacing, bool) or not isinstance(spacing, int | float) or not spacing > 0:
        raise UsageError(f"{path}: radiomics_spacing_mm is {spacing!r}: it must be a number of mm above 0")
    if about.get("made_by") not in ("synthetic", "node", "training"):
        raise UsageError(f"{path}: made_by is {about.get('made_by')!r}: it must be 'synthetic', 'node' or 'training'")
    return about


def _check_scans(table: csv_tables.CsvTable, folder: Path) -> None:
    first: dict[object, int] = {}
    for index, scan in enumerate(table.columns["scan"]):
        if scan in first:
            where = f"stands in row {first[scan] + csv_tables.FIRST_ROW} already"
            raise table.refuse(index, "scan", where, "each scan has one row, leave one of the two")
        first[scan] = index
    for index, volume in enumerate(table.columns["volume"]):
        if volume and not (folder / str(volume)).is_file():
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
