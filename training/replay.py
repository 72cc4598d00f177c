"""A bundle asked about the scans of a cohort as the node asks it: volume, features, scanner, earlier scan."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.answers import Earlier, Scan
from dicomnode.analysis.bundle import Bundle
from dicomnode.analysis.findings import Risk
from dicomnode.analysis.tabular import BATCH_PARTS
from dicomnode.errors import RefusedError, UsageError
from training.arms import Data, Rows, Told
from training.dataset import load_scan


def risks(bundle: Bundle, data: Data, told: Told) -> NDArray[np.float64]:
    """Probability of death within each of the bundle's horizons, (scans, horizons).

    Raises:
        UsageError: a scan lacks what the bundle needs: its volume, or measured numbers.
    """
    answers: dict[int, Risk] = {}
    rows = np.argsort(data.cohort["date"].to_numpy(), kind="stable")
    for done, row in enumerate(rows, start=1):
        number = int(row)
        before = data.earlier(number)
        known = None if before is None else _earlier(data, number, answers[before])
        scan = as_served(data, number, known)
        try:
            answers[number] = bundle.predict(scan.volume, scan.labels, scan.features, known, scan.scanner)
        except RefusedError as error:
            name = data.cohort["scan"].iloc[number]
            raise UsageError(f"{bundle.folder} cannot read the scan {name}: {error.text}") from None
        told(f"Asking {bundle.name} {bundle.version}", done, len(rows))
    return np.array([[h.probability for h in answers[row].horizons] for row in range(len(rows))])


def as_served(data: Data, row: int, earlier: Earlier | None = None) -> Scan:
    """A scan of the cohort in the form that a bundle takes it in.

    Raises:
        UsageError: the registry keeps no volume of it.
    """
    path = data.volume(row)
    if path is None:
        name = data.cohort["scan"].iloc[row]
        raise UsageError(f"the registry has no volume of the scan {name}: export one with registry.volumes = true")
    volume, labels = load_scan(path)
    features = {str(name): float(value) for name, value in _finite(data, row)}
    scanner = {part: str(data.cohort[part].iloc[row]) for part in BATCH_PARTS}
    return Scan(volume, labels, features, scanner, earlier)


def _finite(data: Data, row: int) -> Iterator[tuple[object, float]]:
    return ((name, value) for name, value in data.features.iloc[row].items() if np.isfinite(value))


def _earlier(data: Data, row: int, risk: Risk) -> Earlier:
    return Earlier(float(data.cohort["years_since_earlier"].iloc[row]), risk.bundle_sha256, risk.scan_codes)


def largest_disagreement(bundle: Bundle, data: Data, folds: Rows, predicted: dict[str, NDArray[np.float64]]) -> float:
    """How far the bundle's fold models, asked as the node asks, lie from what training has predicted with them.

    Args:
        bundle: of the run.
        data: the run's scans.
        folds: of each scan, the outer fold by whose model it was predicted.
        predicted: by arm, the out-of-fold risks, (scans, intervals).

    Returns:
        The largest absolute difference of a probability, over a first scan of a patient in each fold, and every arm.
    """
    largest = 0.0
    for fold in np.unique(folds):
        row = next(int(r) for r in np.flatnonzero(folds == fold) if data.earlier(int(r)) is None)
        for arm, found in bundle.models.by_arm(as_served(data, row)).items():
            if int(fold) < len(found):  # a bundle may keep fewer networks than there are folds
                largest = max(largest, float(np.abs(found[int(fold)] - predicted[arm][row]).max()))
    return largest
