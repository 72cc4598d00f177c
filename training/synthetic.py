"""A synthetic registry with a known truth: patients with a latent severity, serial phantom scans, deaths, censoring.

The generator's own risk is kept in `truth.csv`, which nothing but the oracle of the evaluation reads: its AUC is the
best that any model of these scans could reach.
"""

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.phantom import Disease, Phantom, Scanner, chest
from dicomnode.errors import UsageError
from training.outcome import DAYS_PER_YEAR, HORIZONS_YEARS

# Tuned so that about 8.5, 15.3 and 20.1 % of scans are followed by an observed death within 1, 3 and 5 years, as in the
# Northwestern registry (Peltekian et al. 2025, arXiv 2509.23530).
_BASE_HAZARD, _PER_SEVERITY, _PER_AGE_YEAR, _MALE = 0.006, 7.5, 0.02, 0.3
_SEVERITY_BETA = (0.9, 3.0)
_STEP = 1 / 24  # years, for the numerical integration of the hazard


@dataclass(frozen=True)
class Patient:
    """One synthetic patient. Severity is 0 to 1 at the first scan and grows by `progression` a year."""

    patient: str
    age: float
    sex: str
    severity: float
    progression: float
    death_years: float  # from the first scan; may lie beyond the last contact
    contact_years: float


@dataclass(frozen=True)
class ScanRow:
    """A row of `registry.csv`. Days count from the patient's first scan."""

    patient: str
    scan: str
    days: int
    age: float
    sex: str
    file: str


@dataclass(frozen=True)
class OutcomeRow:
    """A row of `outcomes.csv`: days from this scan to death (event 1) or last contact (event 0)."""

    scan: str
    days: int
    event: int


@dataclass(frozen=True)
class TruthRow:
    """A row of `truth.csv`: for the oracle only."""

    scan: str
    severity: float
    risk_1: float
    risk_3: float
    risk_5: float


@dataclass(frozen=True)
class _Task:
    """What a worker process needs for one scan."""

    path: Path
    seed: int
    person: int
    severity: float


def severity_at(patient: Patient, years: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Severity at `years` after the first scan, 0 to 1."""
    return np.clip(patient.severity + patient.progression * np.asarray(years), 0, 1)


def cumulative_hazard(patient: Patient, start: float, end: float) -> float:
    """Hazard of death between two times (years from the first scan), integrated by the midpoint rule."""
    count = max(1, round((end - start) / _STEP))
    middle = start + (np.arange(count) + 0.5) * (end - start) / count
    person = _PER_AGE_YEAR * (patient.age + middle - 55) + _MALE * (patient.sex == "M")
    rate = _BASE_HAZARD * np.exp(_PER_SEVERITY * severity_at(patient, middle) + person)
    return float(rate.sum() * (end - start) / count)


def true_risk(patient: Patient, scan_years: float, horizon: float) -> float:
    """The probability of death within `horizon` years of a scan, given that the patient lives at the scan."""
    return 1 - float(np.exp(-cumulative_hazard(patient, scan_years, scan_years + horizon)))


def draw_patient(number: int, rng: np.random.Generator) -> Patient:
    """A patient with a death time from its hazard and an independent end of contact."""
    severity = float(rng.beta(*_SEVERITY_BETA))
    alive = Patient(
        patient=f"S{number:04d}",
        age=round(float(np.clip(rng.normal(54, 12), 20, 84)), 1),
        sex="M" if rng.random() < 0.2 else "F",
        severity=severity,
        progression=float(np.clip(rng.normal(0.005 + 0.02 * severity, 0.015), -0.01, 0.12)),
        death_years=np.inf,
        contact_years=float(min(rng.exponential(14), rng.uniform(1.5, 11))),
    )
    target, total, time = rng.exponential(), 0.0, 0.0
    while total < target and time < 20:
        total += cumulative_hazard(alive, time, time + _STEP)
        time += _STEP
    return Patient(**{**asdict(alive), "death_years": time if total >= target else np.inf})


def scan_times(patient: Patient, rng: np.random.Generator) -> list[float]:
    """One to four scans (years), about yearly, before death and last contact."""
    end = min(patient.death_years, patient.contact_years)
    gaps = rng.uniform(0.7, 1.8, 3)
    wanted = [0.0, *np.cumsum(gaps)][: int(rng.choice([1, 2, 3, 4], p=[0.25, 0.3, 0.25, 0.2]))]
    return [float(t) for t in wanted if t == 0 or t < end]


def make_registry(
    out: Path,
    patients: int,
    seed: int,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a registry to the new or empty folder `out`; `progress(done, total)` is called after each scan.

    Returns:
        The number of scans.

    Raises:
        UsageError: the folder holds something, or the number of patients makes no sense.
    """
    if patients < 1:
        raise UsageError(f"--patients is {patients}: give at least 1")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: give a new folder, so that no registry is overwritten")
    (out / "scans").mkdir(parents=True, exist_ok=True)
    rows, outcomes, truths, tasks = _draw(out, patients, seed)
    # Spawned, not forked: a fork of a process with threads (torch has some) may hang.
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_write_scan, tasks, chunksize=4), start=1):
            if progress:
                progress(done, len(tasks))
    for name, table, row in (
        ("registry.csv", rows, ScanRow),
        ("outcomes.csv", outcomes, OutcomeRow),
        ("truth.csv", truths, TruthRow),
    ):
        _write_csv(out / name, [f.name for f in fields(row)], table)
    return len(tasks)


def _draw(out: Path, patients: int, seed: int) -> tuple[list[ScanRow], list[OutcomeRow], list[TruthRow], list[_Task]]:
    rows, outcomes, truths, tasks = [], [], [], []
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        patient = draw_patient(number, rng)
        person = int(rng.integers(2**31))
        end = min(patient.death_years, patient.contact_years)
        for index, time in enumerate(scan_times(patient, rng)):
            scan = f"{patient.patient}-{index + 1}"
            file = f"scans/{scan}.npz"
            severity = float(severity_at(patient, time))
            days = max(0, round((end - time) * DAYS_PER_YEAR))
            risks = [round(true_risk(patient, time, h), 6) for h in HORIZONS_YEARS]
            rows.append(
                ScanRow(
                    patient.patient, scan, round(time * DAYS_PER_YEAR), round(patient.age + time, 1), patient.sex, file
                )
            )
            outcomes.append(OutcomeRow(scan, days, int(patient.death_years <= patient.contact_years)))
            truths.append(TruthRow(scan, round(severity, 6), *risks))
            tasks.append(_Task(out / file, int(rng.integers(2**31)), person, severity))
    return rows, outcomes, truths, tasks


def demo_phantom(seed: int, person: int, severity: float) -> Phantom:
    """A scan of the registry, of reduced resolution; this, noise, kernel and the mix of changes vary with the seed."""
    rng = np.random.default_rng([seed, 3])
    z, yx = float(rng.uniform(3.5, 6.0)), float(rng.uniform(2.0, 3.6))
    usual = asdict(Disease.of_severity(severity))
    varied = {k: float(np.clip(v * rng.uniform(0.8, 1.2), 0, 1)) for k, v in usual.items()}
    return chest(
        seed,
        shape=(round(285 / z), round(255 / yx), round(330 / yx)),
        spacing_mm=(z, yx, yx),
        disease=Disease(**varied),
        scanner=Scanner(noise_hu=float(rng.uniform(8, 30)), sharpness=float(rng.uniform(0.3, 0.9))),
        person=person,
    )


def _write_scan(task: _Task) -> None:
    phantom = demo_phantom(task.seed, task.person, task.severity)
    np.savez_compressed(
        task.path,
        hu=phantom.volume.hu,
        labels=phantom.labels,
        spacing_mm=np.array(phantom.volume.spacing_mm),
        origin_mm=np.array(phantom.volume.origin_mm),
    )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[ScanRow | OutcomeRow | TruthRow]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
