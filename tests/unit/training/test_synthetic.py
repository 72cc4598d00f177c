"""The synthetic registry: its truth is the probability of what it draws, and its rates are those it was tuned to."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dicomnode.errors import UsageError
from training.dataset import load_registry, load_scan, load_truth
from training.outcome import status_at
from training.synthetic import Patient, cumulative_hazard, draw_patient, make_registry, scan_times, true_risk

PATIENT = Patient("S1", age=60, sex="F", severity=0.4, progression=0.05, death_years=np.inf, contact_years=10)


def test_hazards_add_up_over_time() -> None:
    parts = cumulative_hazard(PATIENT, 0, 2) + cumulative_hazard(PATIENT, 2, 5)
    assert cumulative_hazard(PATIENT, 0, 5) == pytest.approx(parts, rel=1e-4)


@pytest.mark.parametrize(("field", "value"), [("severity", 0.6), ("progression", 0.1), ("age", 75.0), ("sex", "M")])
def test_risk_rises_with(field: str, value: float | str) -> None:
    worse = dataclasses.replace(PATIENT, **{field: value})
    assert true_risk(worse, 0, 3) > true_risk(PATIENT, 0, 3)


def test_the_true_risk_is_the_share_of_deaths_that_are_drawn() -> None:
    drawn = [draw_patient(i, np.random.default_rng([8, i])) for i in range(300)]
    risk = np.array([true_risk(p, 0, 3) for p in drawn])
    died = np.array([p.death_years <= 3 for p in drawn])
    assert died.mean() == pytest.approx(risk.mean(), abs=3 * np.sqrt((risk * (1 - risk)).mean() / 300))
    high = risk > np.quantile(risk, 0.8)
    assert died[high].mean() > 3 * died[~high].mean()


def test_scans_lie_before_death_and_last_contact() -> None:
    for i in range(200):
        rng = np.random.default_rng([9, i])
        patient = draw_patient(i, rng)
        times = scan_times(patient, rng)
        assert times[0] == 0 and 1 <= len(times) <= 4 and times == sorted(times)
        assert all(t < min(patient.death_years, patient.contact_years) for t in times[1:])


def test_a_registry_is_written_and_read_and_repeats(tmp_path: Path) -> None:
    told = []
    scans = make_registry(tmp_path / "a", 2, seed=5, workers=1, progress=lambda done, total: told.append((done, total)))
    registry = load_registry(tmp_path / "a")
    assert told[-1] == (scans, scans) and len(registry.scans) == scans
    assert len(set(registry.patients)) == 2
    truth = load_truth(registry, (1, 3, 5))
    assert (np.diff(truth, axis=1) > 0).all(), "risk rises with the horizon"
    volume, labels = load_scan(registry.files[0])
    assert volume.hu.dtype == np.int16 and labels.shape == volume.hu.shape
    assert 2000 < (labels > 0).sum() * volume.voxel_ml < 6000
    dead, known = status_at(registry.outcomes, 1)
    assert (known | ~dead).all()
    with pytest.raises(UsageError, match="is not empty"):
        make_registry(tmp_path / "a", 2, seed=5)


def test_no_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--patients is 0"):
        make_registry(tmp_path / "a", 0, seed=5)
