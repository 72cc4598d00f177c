"""Scans drawn from a population, without an image: what a registry's rows and a run's tables would hold of them.

Patients, scanners and kernels are those of the synthetic registry; its measurements are imitated by their rough size
and what they depend on (severity, sex, breath, kernel, noise).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dicomnode.analysis.risk.reference import ReferenceDistribution
from dicomnode.registry.monitor import inputs_of
from dicomnode.store.catalog.registry import RegistryRisk, RegistryScan
from training.bundle import reference
from training.synthetic.patients import SCANNERS, SyntheticScan, draw

WEEK_S = 7 * 86_400.0
#: A Monday, 00:00 UTC.
MONDAY = 1_767_571_200.0
BUNDLE = "b" * 64
_STEPS_MM = (1.25, 1.0, 0.6, 1.0, 1.0)
Change = Callable[[RegistryScan, np.random.Generator], RegistryScan]


@dataclass(frozen=True)
class Population:
    """Patients of one clinic: each one's scan, as the registry would hold it, and its true risk at five years."""

    scans: tuple[RegistryScan, ...]
    risks: tuple[float, ...]

    def reference(self) -> ReferenceDistribution:
        """Return what a bundle made on them would carry."""
        made = reference.fit(
            [inputs_of(s) for s in self.scans], [s.patient for s in self.scans], [s.scan for s in self.scans]
        )
        assert made is not None
        return made

    def stream(
        self, weeks: int, a_week: float, seed: int, change: Change | None = None, first: int = 1
    ) -> list[RegistryScan]:
        """Return scans drawn from them over weeks, from `first` on as `change` makes them."""
        rng = np.random.default_rng(seed)
        found = []
        for week in range(1, weeks + 1):
            for number in range(rng.poisson(a_week)):
                scan = self.scans[rng.integers(len(self.scans))]
                at = MONDAY + (week - 1) * WEEK_S + rng.uniform(0, WEEK_S)
                scan = replace(
                    scan, scan=f"scan{seed}w{week}n{number}", patient=f"who{seed}w{week}n{number}", recorded_at=at
                )
                found.append(scan if change is None or week < first else change(scan, rng))
        return found


def population(patients: int, seed: int) -> Population:
    """Draw one scan of each of many patients."""
    firsts: dict[str, SyntheticScan] = {}
    for one in draw(patients, seed)[1]:
        firsts.setdefault(one.patient.patient, one)
    rng = np.random.default_rng([seed, 1])
    made = [_row(one, rng) for one in firsts.values()]
    return Population(tuple(made), tuple(one.risks[-1] for one in firsts.values()))


def _row(one: SyntheticScan, rng: np.random.Generator) -> RegistryScan:
    male, sick = one.patient.sex == "M", one.severity
    step = _STEPS_MM[SCANNERS.index(one.scanner)]
    scan = RegistryScan(
        scan=one.scan,
        patient=one.patient.patient,
        date="2026-01-01",
        age_years=min(90.0, round(one.patient.age + one.years, 1)),
        sex=one.patient.sex,
        manufacturer=one.scanner.manufacturer,
        model=one.scanner.model,
        kernel=one.kernel,
        kernel_family=one.kernel_family,
        slice_thickness_mm=step,
        spacing_z_mm=step,
        segmenter="classical 3",
        software_version="0",
        algorithm_digest="0",
        doubts="",
        features={},
        volume="",
        recorded_at=0.0,
    )
    return measured(scan, sick, 5200.0 if male else 4100.0, one.sharpness * one.scanner.noise_hu, rng)


def measured(
    scan: RegistryScan, sick: float, healthy_ml: float, noise_hu: float, rng: np.random.Generator
) -> RegistryScan:
    """Return a scan with measurements that fit a severity (0 to 1), a healthy volume and the image's noise."""
    breath = rng.normal(0, 0.12)
    volume = healthy_ml * (1 - 0.45 * sick) * np.exp(breath)
    mean = -845 + 190 * sick - 160 * breath + rng.normal(0, 12)
    high = np.expm1(np.log1p(3.5) + 2.3 * sick - 0.8 * breath + rng.normal(0, 0.2))
    low = np.expm1(np.log1p(2.0) + 0.06 * noise_hu - 1.2 * sick + 1.5 * breath + rng.normal(0, 0.3))
    features = {
        "quantities.lungs.volume_ml": float(volume),
        "quantities.lungs.mean_hu": float(mean),
        "quantities.lungs.sd_hu": float(110 + 150 * sick + 1.2 * noise_hu + rng.normal(0, 8)),
        "quantities.lungs.kurtosis": float(max(0.1, 8 - 6 * sick + rng.normal(0, 0.8))),
        "quantities.lungs.haa_percent": float(np.clip(high, 0.1, 90)),
        "quantities.lungs.laa950_percent": float(np.clip(low, 0.0, 80)),
    }
    return replace(scan, features=features)


def sicker(scan: RegistryScan, rng: np.random.Generator) -> RegistryScan:
    """Return a scan of a clinic whose patients are mostly severely ill."""
    return measured(scan, float(rng.beta(3, 2.5)), 4300.0, 10.0, rng)


def another_kernel(scan: RegistryScan, rng: np.random.Generator) -> RegistryScan:
    """Return a scan as a scanner makes it that was set to a sharp kernel for all."""
    sharp = measured(scan, float(rng.beta(1, 2.6)), 4300.0, 32.0, rng)
    return replace(sharp, kernel="B70f", kernel_family="lung")


def thicker(scan: RegistryScan, rng: np.random.Generator) -> RegistryScan:
    """Return a scan in slices of 3 mm."""
    return replace(scan, slice_thickness_mm=3.0, spacing_z_mm=3.0)


def risks_of(scans: Sequence[RegistryScan]) -> Iterator[RegistryRisk]:
    """Yield what a served bundle says: high attenuation makes it."""
    for scan in scans:
        high = np.log1p(scan.features["quantities.lungs.haa_percent"])
        five = float(1 / (1 + np.exp(4.2 - 1.3 * high)))
        risk = {1: five / 4, 3: five / 1.6, 5: five}
        yield RegistryRisk(scan.scan, BUNDLE, scan.patient, "bundle", "1", True, risk, scan.recorded_at)


def tables(of: Population) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return a cohort, its features and a registry's scans, as a run has them."""
    rows = [vars(s) for s in of.scans]
    frame = pd.DataFrame(rows)
    features = pd.DataFrame([{"scan": s.scan, **s.features, "covariates.age_years": s.age_years} for s in of.scans])
    return frame.drop(columns=["features", "spacing_z_mm"]), features, frame[["scan", "spacing_z_mm"]]
