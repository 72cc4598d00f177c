"""A registry folder is read whole or refused with the fault."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dicomnode.errors import UsageError
from tests.helpers.tabular_worlds import world, write
from training.data.registry_folder import read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(world(patients=4), tmp_path / "registry")


def test_scans_and_features_come_in_one_order(folder: Path) -> None:
    stored = pd.read_parquet(folder / "features.parquet")
    stored.sample(frac=1, random_state=1).to_parquet(folder / "features.parquet", index=False)
    registry = read(folder)
    assert not registry.synthetic and registry.scans["date"].dt.year.min() == 2010
    assert registry.scans["age_years"].dtype == np.float64 and (registry.scans["volume"] == "").all()
    pd.testing.assert_frame_equal(registry.features, stored.drop(columns="scan"))


def test_a_scan_without_features_has_gaps_and_a_registry_may_have_none(folder: Path) -> None:
    stored = pd.read_parquet(folder / "features.parquet")
    stored.iloc[1:].to_parquet(folder / "features.parquet", index=False)
    assert read(folder).features.iloc[0].isna().all() and read(folder).features.iloc[1:].notna().all(axis=None)
    before = read(folder).sha256
    (folder / "features.parquet").unlink()
    without = read(folder)
    assert without.features.shape == (len(without.scans), 0) and without.sha256 != before


def scans(folder: Path, old: str, new: str) -> None:
    text = (folder / "scans.csv").read_text()
    assert old in text
    (folder / "scans.csv").write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",medium,", ",middling,", "row 2, column kernel_family: 'middling' is not allowed: use 'lung'"),
        ("2010-01-01", "2090-01-01", "row 2, column date: '2090-01-01' is in the future"),
        ("P0001-1", "P0000-1", "column scan: 'P0000-1' stands in row 2 already: each scan has one row"),
        (",a1,", ",a1,scans/x.npz", "column volume: 'scans/x.npz' is no file: copy the whole registry"),
        (",a1,", ",a1,../x.npz", "column volume: '../x.npz' leaves the registry folder"),
        (",1.25,", ",-1,", "column slice_thickness_mm: '-1' is not between"),
    ],
)
def test_a_wrong_scan_is_refused(folder: Path, old: str, new: str, message: str) -> None:
    scans(folder, old, new)
    with pytest.raises(UsageError) as refused:
        read(folder)
    assert message in str(refused.value) and "scans.csv, row" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="scan"), "has no column 'scan'"),
        (
            lambda f: f.rename(columns={f.columns[1]: "haa"}),
            "column haa: features begin with quantities. or radiomics.",
        ),
        (lambda f: f.astype({f.columns[1]: "float32"}), "its type is float32, not float64"),
        (
            lambda f: f.assign(**{f.columns[1]: np.inf}),
            "row 1, column quantities.lungs.haa_percent: 'inf' is no finite",
        ),
        (lambda f: pd.concat([f, f[:1]]), "'P0000-1' stands twice"),
        (lambda f: f.assign(scan="other"), "'other' stands twice"),
        (lambda f: f[:1].assign(scan="other"), "row 1, column scan: 'other' is not in scans.csv"),
    ],
)
def test_wrong_features_are_refused(folder: Path, change, message: str) -> None:
    change(pd.read_parquet(folder / "features.parquet")).to_parquet(folder / "features.parquet", index=False)
    with pytest.raises(UsageError) as refused:
        read(folder)
    assert message in str(refused.value) and "features.parquet" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = 3\nmade_by = 'node'\n", "format is 3, this version reads 1 and 2"),
        ("format = 1\nmade_by = 'training'\n", "make it anew from the images with `training cohort --dicom`"),
        ("format = 1\nmade_by = 'me'\n", "made_by is 'me'"),
        ("format = 1\nmade_by = 'node'\nradiomics_spacing_mm = 0\n", "radiomics_spacing_mm is 0"),
        ("format = 1\nmade_by = 'node'\nradiomics_spacing_mm = '4'\n", "radiomics_spacing_mm is '4'"),
        ("format =", "is not TOML"),
    ],
)
def test_a_wrong_description_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "registry.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read(folder)


def test_a_folder_that_is_no_registry_names_the_cure(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="so this is not a registry: give a folder made by `dicomnode registry export`"
    ):
        read(tmp_path)
    (folder / "features.parquet").write_text("no parquet")
    with pytest.raises(UsageError, match="is not a Parquet file"):
        read(folder)
