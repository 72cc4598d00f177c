"""Synthetic patients with a known truth: severity, progression, age and sex; scans in time; death, loss and transplant.

Nothing here makes an image: a registry's tables are drawn in a second, so that its rates can be tuned and tested.
Times are years from the patient's first scan.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.series import kernels
from training.data.outcomes import DAYS_PER_YEAR, HORIZONS_YEARS

Floats = NDArray[np.float64]

# Tuned so that about 8.5, 15.3 and 20.1 % of scans are followed by an observed death within 1, 3 and 5 years, as in the
# Northwestern registry (Peltekian et al. 2025, arXiv 2509.23530), with three to four scans a patient.
_BASE_HAZARD = 0.0041
_PER_SEVERITY, _PER_PROGRESSION, _PER_AGE_YEAR, _MALE = 7.4, 5.0, 0.015, 0.3
_SEVERITY_BETA = (1.0, 2.6)
_MOST_SCANS = 9
#: Loss to follow-up: sicker and older patients are lost sooner, so censoring depends on what the images show.
_LOST_HAZARD, _LOST_PER_SEVERITY, _LOST_PER_AGE_YEAR = 0.035, 1.0, 0.02
#: End of the study: independent of the patient.
_STUDY_END_YEARS = (1.0, 10.0)
_TRANSPLANT_HAZARD, _TRANSPLANT_FROM_SEVERITY, _TRANSPLANT_TO_AGE = 0.03, 0.5, 65.0

_STEP = 1 / 24
_EDGES = np.arange(0, 25 + _STEP / 2, _STEP)
_MIDDLES = (_EDGES[:-1] + _EDGES[1:]) / 2


@dataclass(frozen=True)
class SyntheticScanner:
    """A scanner type: its name, the noise (SD, HU) of its usual dose, and its two kernels with their sharpness."""

    manufacturer: str
    model: str
    noise_hu: float
    kernels: tuple[tuple[str, float], tuple[str, float]]


#: Older scanners are noisier; the kernels' names are the vendors' own, so that `kernels.family` knows them.
SCANNERS = (
    SyntheticScanner("GE MEDICAL SYSTEMS", "LightSpeed VCT", 24.0, (("STANDARD", 0.45), ("LUNG", 0.85))),
    SyntheticScanner("SIEMENS", "Sensation 64", 20.0, (("B40f", 0.45), ("B60f", 0.80))),
    SyntheticScanner("Siemens Healthineers", "SOMATOM Force", 12.0, (("Br40", 0.40), ("Br59", 0.75))),
    SyntheticScanner("Philips", "Brilliance 64", 22.0, (("B", 0.35), ("D", 0.70))),
    SyntheticScanner("Canon Medical Systems", "Aquilion ONE", 16.0, (("FC08", 0.40), ("FC52", 0.80))),
)


@dataclass(frozen=True)
class Patient:
    """One synthetic patient. Severity is 0 to 1 at the first scan and grows by `progression` a year.

    Attributes:
        person: seed of the anatomy.
        fibrosis: how much of the disease is reticulation and honeycombing rather than ground glass: 1 is usual.
        death: may lie beyond `contact`, and is then not observed.
        contact: last contact, by loss, by the study's end, or by a transplant.
        transplanted: whether `contact` is a lung transplant.
    """

    patient: str
    person: int
    age: float
    sex: str
    severity: float
    progression: float
    fibrosis: float
    first_day: int
    death: float = np.inf
    contact: float = np.inf
    transplanted: bool = False

    @property
    def end(self) -> float:
        """Death or last contact, whichever comes first."""
        return min(self.death, self.contact)


@dataclass(frozen=True)
class SyntheticScan:
    """One scan. `seed` decides noise, breath and resolution; `risks` are the true ones at `HORIZONS_YEARS`."""

    scan: str
    patient: Patient
    years: float
    scanner: SyntheticScanner
    kernel: str
    sharpness: float
    seed: int
    severity: float
    risks: tuple[float, ...]

    @property
    def kernel_family(self) -> str:
        """As the node reads it from a header."""
        return kernels.family(self.scanner.manufacturer, self.kernel)


def severity_at(patient: Patient, years: float | Floats) -> Floats:
    """Return the severity, 0 to 1, at `years` after the first scan, in their shape."""
    return np.asarray(np.clip(patient.severity + patient.progression * np.asarray(years), 0, 1), np.float64)


def cumulative_hazard(patient: Patient, years: float | Floats) -> Floats:
    """Return the cumulative hazard of death up to `years`, in their shape; midpoint rule on steps of half a month."""
    person = _PER_AGE_YEAR * (patient.age + _MIDDLES - 55) + _MALE * (patient.sex == "M")
    disease = _PER_SEVERITY * severity_at(patient, _MIDDLES) + _PER_PROGRESSION * patient.progression
    return np.asarray(np.interp(years, _EDGES, _cumulated(_BASE_HAZARD * np.exp(disease + person))))


def true_risk(patient: Patient, scan_years: float, horizon: float) -> float:
    """Return the probability of death within `horizon` years of a scan, given that the patient lives at the scan."""
    before, after = cumulative_hazard(patient, np.array([scan_years, scan_years + horizon]))
    return 1 - float(np.exp(before - after))


def draw_patient(number: int, rng: np.random.Generator) -> Patient:
    """Draw a patient: a death time from its hazard, an end of contact that depends on it, and maybe a transplant."""
    severity = float(rng.beta(*_SEVERITY_BETA))
    patient = Patient(
        patient=f"S{number:04d}",
        person=int(rng.integers(2**31)),
        age=round(float(np.clip(rng.normal(54, 12), 20, 84)), 1),
        sex="M" if rng.random() < 0.2 else "F",
        severity=severity,
        progression=float(np.clip(rng.normal(0.005 + 0.02 * severity, 0.015), -0.01, 0.12)),
        fibrosis=float(rng.uniform(0.8, 1.2)),
        first_day=int(rng.integers(0, 12 * 365)),
    )
    sick = severity_at(patient, _MIDDLES)
    lost = _LOST_HAZARD * np.exp(_LOST_PER_SEVERITY * sick + _LOST_PER_AGE_YEAR * (patient.age + _MIDDLES - 55))
    suitable = (sick > _TRANSPLANT_FROM_SEVERITY) & (patient.age + _MIDDLES < _TRANSPLANT_TO_AGE)
    transplant = _time(_cumulated(np.where(suitable, _TRANSPLANT_HAZARD, 0.0)), rng)
    contact = min(_time(_cumulated(lost), rng), float(rng.uniform(*_STUDY_END_YEARS)))
    death = _time(cumulative_hazard(patient, _EDGES), rng)
    return replace(
        patient, death=death, contact=min(contact, transplant), transplanted=transplant < min(contact, death)
    )


def draw_scans(patient: Patient, rng: np.random.Generator) -> list[SyntheticScan]:
    """One to nine scans before death and last contact, closer together in sicker patients."""
    gaps = rng.uniform(0.4, 1.25, _MOST_SCANS - 1) * (1.15 - 0.9 * patient.severity)
    wanted = [0.0, *np.cumsum(gaps)][: int(rng.integers(1, _MOST_SCANS + 1))]
    scanner = SCANNERS[rng.integers(len(SCANNERS))]
    scans = []
    for index, years in enumerate(wanted):
        if rng.random() < 0.25:
            scanner = SCANNERS[rng.integers(len(SCANNERS))]
        kernel, sharpness = scanner.kernels[int(rng.random() < 0.6)]
        seed = int(rng.integers(2**31))
        # On whole days, as in the tables: the truth belongs to the dates that are written.
        time = round(float(years) * DAYS_PER_YEAR) / DAYS_PER_YEAR
        if time and time >= patient.end:
            continue
        risks = tuple(round(true_risk(patient, time, h), 6) for h in HORIZONS_YEARS)
        severity = float(severity_at(patient, time))
        name = f"{patient.patient}-{index + 1}"
        scans.append(SyntheticScan(name, patient, time, scanner, kernel, sharpness, seed, severity, risks))
    return scans


def draw(patients: int, seed: int) -> tuple[list[Patient], list[SyntheticScan]]:
    """Return the patients of a registry and their scans, patient by patient in time.

    More patients do not change the first.
    """
    drawn, scans = [], []
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        drawn.append(draw_patient(number, rng))
        scans += draw_scans(drawn[-1], rng)
    return drawn, scans


def _cumulated(rate: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(rate * _STEP)])


def _time(cumulated: Floats, rng: np.random.Generator) -> float:
    """When a cumulated hazard reaches an exponential draw; infinite beyond the 25 years that are followed."""
    target = rng.exponential()
    return float(np.interp(target, cumulated, _EDGES)) if target < cumulated[-1] else np.inf
