"""An arm on nested folds: fitted on each outer fold's training part, asked about the rest."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.errors import DicomnodeError
from training.data.splits import Nested, assert_disjoint
from training.files import digest
from training.models import stacking
from training.models.arm import Arm, Data
from training.progress_type import ProgressCallback


def cross_fit(arm: Arm, data: Data, drawn: Nested, seed: int, folder: Path, progress: ProgressCallback) -> pd.DataFrame:
    """Fit an arm on each outer fold's training part and predict the rest.

    Args:
        arm: what to fit; in each fold it is told the outcomes of the training part alone.
        data: all scans, with all outcomes.
        drawn: the folds.
        seed: of the run.
        folder: of the arm; a fold has its own in it, and one that is done is not fitted again.
        progress: told about each step.

    Returns:
        arm, scan, patient, fold, risk_1, …: a row a scan, in the order of `data`.

    Raises:
        LeakageError: the folds are not of these patients.
        UsageError: the arm cannot be fitted to these scans.
    """
    drawn.check(data.patients)
    tables = []
    for number in range(len(drawn.outer)):
        train, test = drawn.fold(number, data.patients)
        inner = drawn.inner_folds(number, data.patients)
        assert_disjoint(data.patients, train, test)
        stage = f"{arm.name}, fold {number + 1} of {len(drawn.outer)}"
        told = _prefixed(progress, f"{arm.name} {number + 1}/{len(drawn.outer)}")
        own = seed_of(seed, arm.name, number)
        fitted = arm.fit(data.hidden_outside(train), train, inner, folder / f"fold-{number}", own, told)
        risks = checked(fitted.predict(test), len(test), stage, len(data.outcomes.edges) - 1)
        scans = data.cohort.iloc[test][["scan", "patient"]].assign(fold=number)
        tables.append(stacking.table(arm.name, scans, risks, data.outcomes.edges))
    found = pd.concat(tables).set_index("scan").loc[data.cohort["scan"]].reset_index()
    return found[list(tables[0])]


def _prefixed(progress: ProgressCallback, stage: str) -> ProgressCallback:
    return lambda what, done, total: progress(f"{stage}: {what}", done, total)


def seed_of(seed: int, arm: str, fold: int) -> int:
    """Return the seed of an arm's fold: its own, so that another arm in the run changes nothing."""
    return int(digest(seed, arm, fold)[:8], 16)


def checked(
    risks: NDArray[np.float64], count: int, stage: str, intervals: int = len(stacking.RISKS)
) -> NDArray[np.float64]:
    """Return the risks of so many scans, (scans, intervals), as they are.

    Raises:
        DicomnodeError: they are no probabilities that rise with the year; `stage` says whose.
    """
    shaped = risks.shape == (count, intervals)
    if not shaped or not np.isfinite(risks).all() or risks.min() < 0 or risks.max() > 1:
        raise DicomnodeError(f"{stage}: the predicted risks are not {count} rows of probabilities: please report this")
    if np.any(np.diff(risks, axis=1) < -1e-9):
        raise DicomnodeError(f"{stage}: a predicted risk decreases from one year to the next: please report this")
    return risks
