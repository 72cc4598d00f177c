"""A registry that is not complete is refused with the file and the fault."""

from pathlib import Path

import numpy as np
import pytest

from dicomnode.errors import UsageError
from training.dataset import load_registry, load_scan

REGISTRY = "patient,scan,days,age,sex,file\nA,A-1,0,50,F,scans/A-1.npz\nA,A-2,400,51,F,scans/A-2.npz\n"
OUTCOMES = "scan,days,event\nA-1,730.5,1\nA-2,330,1\n"


def write(folder: Path, registry: str = REGISTRY, outcomes: str = OUTCOMES) -> Path:
    (folder / "registry.csv").write_text(registry)
    (folder / "outcomes.csv").write_text(outcomes)
    return folder


def test_days_become_years(tmp_path: Path) -> None:
    registry = load_registry(write(tmp_path))
    np.testing.assert_allclose(registry.outcomes.years, [2.0, 330 / 365.25])
    assert registry.patients == ("A", "A") and registry.files[1] == tmp_path / "scans/A-2.npz"


def test_the_digest_hangs_on_the_outcomes(tmp_path: Path) -> None:
    first = load_registry(write(tmp_path)).sha256
    assert load_registry(write(tmp_path)).sha256 == first
    assert load_registry(write(tmp_path, outcomes=OUTCOMES.replace("330", "331"))).sha256 != first


@pytest.mark.parametrize(
    ("registry", "outcomes", "message"),
    [
        (REGISTRY, "scan,days,event\nA-1,700,1\n", "1 of 2 scans have no row in outcomes.csv"),
        (REGISTRY, OUTCOMES.replace("330", "soon"), "outcomes.csv: could not convert"),
        (REGISTRY, OUTCOMES.replace("330", "-3"), "outcomes.csv: years to death or last contact must be finite"),
        (REGISTRY.replace("file", "path"), OUTCOMES, "registry.csv has no column file"),
        (REGISTRY.splitlines()[0] + "\n", OUTCOMES, "0 of 0 scans"),
    ],
)
def test_an_incomplete_registry_is_refused(tmp_path: Path, registry: str, outcomes: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_registry(write(tmp_path, registry, outcomes))


def test_a_missing_table_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"registry\.csv is missing: give a registry folder"):
        load_registry(tmp_path)


def test_a_file_that_is_no_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("odd.npz", "other.npz", "missing.npz"):
        with pytest.raises(UsageError, match="is not a scan of a registry"):
            load_scan(tmp_path / name)
