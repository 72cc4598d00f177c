"""A registry that is not complete is refused with the file and the fault."""

from pathlib import Path

import numpy as np
import pytest

from dicomnode.errors import UsageError
from training.dataset import load_registry, load_scan

SCANS = "patient,scan,date,volume\nA,A-1,2015-01-01,scans/A-1.npz\nA,A-2,2015-06-01,scans/A-2.npz\n"
OUTCOMES = "patient,death_date,last_contact_date\nA,2017-01-01,2016-12-01\n"


def write(folder: Path, scans: str = SCANS, outcomes: str = OUTCOMES) -> Path:
    (folder / "scans.csv").write_text(scans)
    (folder / "outcomes.csv").write_text(outcomes)
    return folder


def test_dates_become_years(tmp_path: Path) -> None:
    registry = load_registry(write(tmp_path))
    np.testing.assert_allclose(registry.outcomes.years, [731 / 365.25, 580 / 365.25])
    assert registry.outcomes.event.all()
    assert registry.patients == ("A", "A") and registry.files[1] == tmp_path / "scans/A-2.npz"


def test_without_a_death_the_last_contact_counts(tmp_path: Path) -> None:
    registry = load_registry(write(tmp_path, outcomes=OUTCOMES.replace("2017-01-01", "")))
    assert registry.outcomes.years[0] == pytest.approx(700 / 365.25) and not registry.outcomes.event.any()


def test_the_digest_hangs_on_the_outcomes(tmp_path: Path) -> None:
    first = load_registry(write(tmp_path)).sha256
    assert load_registry(write(tmp_path)).sha256 == first
    assert load_registry(write(tmp_path, outcomes=OUTCOMES.replace("2017", "2018"))).sha256 != first


@pytest.mark.parametrize(
    ("scans", "outcomes", "message"),
    [
        (SCANS, OUTCOMES.replace("\nA,", "\nB,"), "patients of 2 of 2 scans have no row in outcomes.csv"),
        (SCANS, OUTCOMES.replace("2017-01-01", "soon"), "outcomes.csv: Invalid isoformat string"),
        (SCANS, OUTCOMES.replace("2017", "2014"), "outcomes.csv: years to death or last contact must be finite"),
        (SCANS.replace("volume", "path"), OUTCOMES, "scans.csv has no column volume"),
        (SCANS.replace("scans/A-2.npz", ""), OUTCOMES, "1 of 2 scans have no volume"),
        (SCANS.splitlines()[0] + "\n", OUTCOMES, "0 of 0 scans"),
    ],
)
def test_an_incomplete_registry_is_refused(tmp_path: Path, scans: str, outcomes: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_registry(write(tmp_path, scans, outcomes))


def test_a_missing_table_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"scans\.csv is missing: give a registry folder"):
        load_registry(tmp_path)


def test_a_file_that_is_no_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("odd.npz", "other.npz", "missing.npz"):
        with pytest.raises(UsageError, match="is not a scan of a registry"):
            load_scan(tmp_path / name)
