"""Registries of numbers alone, with a known hazard: for everything in training that needs no image."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from training.data.cohort import outcomes_of
from training.data.registry_folder import SCANS
from training.features.compute import measure
from training.models.arm import Data

FIRST_DAY = date(2010, 1, 1)


@dataclass(frozen=True)
class World:
    """Tables as a registry holds them, and the risk that made the deaths."""

    scans: pd.DataFrame
    features: pd.DataFrame
    outcomes: pd.DataFrame
    severity: np.ndarray


def world(patients: int = 150, seed: int = 1, effect: float = 1.2, noise: int = 6, hazard: float = 0.08) -> World:
    """Patients of a latent severity, one to three scans about yearly, hazard `hazard` exp(effect * severity) a year.

    Two quantities see the severity through noise, `noise` radiomics see nothing. Contact ends at random.
    """
    rng = np.random.default_rng(seed)
    scans, features, outcomes, severities = [], [], [], []
    for number in range(patients):
        patient, severity = f"P{number:04d}", rng.normal()
        death, contact = rng.exponential(1 / (hazard * np.exp(effect * severity))), rng.uniform(1, 9)
        end = FIRST_DAY + timedelta(days=1 + int(365.25 * min(death, contact)))
        last = end.isoformat()
        outcomes.append((patient, last if death <= contact else "", last, ""))
        for index in range(int(rng.integers(1, 4))):
            day = FIRST_DAY + timedelta(days=400 * index)
            if day >= end:
                break
            scan = f"{patient}-{index + 1}"
            maker = ("GE", "Siemens")[number % 2]
            row = (patient, scan, day.isoformat(), f"{55 + index}", "FM"[number % 5 == 0], maker, "one", "STANDARD")
            scans.append((*row, "medium", "1.25", "1.25", "lungmask", "0.1", "a1", ""))
            seen = severity + rng.normal(0, 0.4)
            features.append((10 + 3 * seen, -700 - 20 * (severity + rng.normal(0, 0.4)), *rng.normal(size=noise)))
            severities.append(severity)
    names = ["quantities.lungs.haa_percent", "quantities.lungs.mean_hu"]
    names += [f"radiomics.lungs.original_firstorder_N{i}" for i in range(noise)]
    table = pd.DataFrame(scans, columns=list(SCANS))
    measured = pd.DataFrame(features, columns=names, dtype="float64")
    measured.insert(0, "scan", table["scan"])
    columns = ["patient", "death_date", "last_contact_date", "transplant_date"]
    return World(table, measured, pd.DataFrame(outcomes, columns=columns), np.array(severities))


def renamed(made: World, prefix: str) -> World:
    """The same tables of other patients."""
    scans = made.scans.assign(patient=prefix + made.scans["patient"], scan=prefix + made.scans["scan"])
    features = made.features.assign(scan=prefix + made.features["scan"])
    outcomes = made.outcomes.assign(patient=prefix + made.outcomes["patient"])
    return World(scans, features, outcomes, made.severity)


def second_site(seed: int = 11, patients: int = 300, base: float = 3.0, sharper: float = 0.0) -> World:
    """A site with other patients, another scanner and kernel, and `base` times the hazard at the same lungs.

    The kernel shows `sharper` more percent of high attenuation in the same lungs.
    """
    made = renamed(world(patients, seed, hazard=0.08 * base), "Q")
    other = {"manufacturer": "Canon Medical Systems", "model": "Aquilion", "kernel": "FC52", "kernel_family": "lung"}
    haa = "quantities.lungs.haa_percent"
    features = made.features.assign(**{haa: made.features[haa] + sharper})
    return World(made.scans.assign(**other), features, made.outcomes, made.severity)


def write(made: World, folder: Path) -> Path:
    """The world as a registry folder, with outcomes.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "registry.toml").write_text('format = 1\nmade_by = "node"\ncreated = "2024-01-01"\n', encoding="utf-8")
    made.scans.to_csv(folder / "scans.csv", index=False)
    made.features.to_parquet(folder / "features.parquet", index=False)
    made.outcomes.to_csv(folder / "outcomes.csv", index=False)
    return folder


def imaged(made: World, folder: Path) -> World:
    """The world with a small image of each scan in `folder`, and the numbers measured on it.

    Its lungs are the denser the more severe the disease is, through noise of each scan.
    """
    rng = np.random.default_rng(9)
    labels = np.zeros((6, 24, 24), np.uint8)
    labels[1:5, 4:20, 2:11], labels[1:5, 4:20, 13:22] = 1, 2
    (folder / "volumes").mkdir(parents=True)
    rows = []
    for scan, severity in zip(made.scans["scan"], made.severity, strict=True):
        seen = severity + rng.normal(0, 0.3)
        hu = np.where(labels > 0, -700 + 50 * seen + rng.normal(0, 60, labels.shape), -1024).astype(np.int16)
        path = folder / "volumes" / f"{scan}.npz"
        np.savez(path, hu=hu, labels=labels, spacing_mm=(16.0, 8.0, 8.0), origin_mm=(0.0, 0.0, 0.0))
        rows.append({"scan": scan, **measure(path, None)})
    scans = made.scans.assign(volume=[f"volumes/{scan}.npz" for scan in made.scans["scan"]])
    return World(scans, pd.DataFrame(rows), made.outcomes, made.severity)


def data(made: World, folder: Path) -> Data:
    """The world as an arm sees it."""
    from training.data import cohort, follow_up, registry_folder
    from training.features import compute as features
    from training.run import settings

    read = registry_folder.read(write(made, folder))
    frame = cohort.build(read, follow_up.read_outcomes(folder / "outcomes.csv")).frame
    found = features.compute(frame, read, settings.FeatureSettings(), folder, lambda *_: None)
    known = frame.drop(columns=["time_years", "event"])
    return Data(folder, known, found.drop(columns="scan"), outcomes_of(frame))


def settings_toml(folder: Path, **tables: str) -> Path:
    """run.toml beside a registry folder named `registry`; `tables` are further lines by table."""
    lines = ['registry = "registry"', 'outcomes = "registry/outcomes.csv"', 'out = "run"', tables.pop("top", "")]
    lines += [f"[{name}]\n{text}" for name, text in tables.items()]
    (folder / "run.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "run.toml"
