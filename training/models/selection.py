"""Whether arms are combined, and how much they are recalibrated: chosen inside, by cross-validation over patients.

Doing less is the rule, and has to be worse to be given up:

- each prior of the recalibration is the narrowest whose cross-validated likelihood is within two standard errors of the
  best (within one, from `_FEW_DEATHS` patients who died on);
- the arms are combined only where that ranks better than the best arm alone, by Harrell's C on predictions that no
  choice has seen, and by more than such a choice errs in a registry of the size; otherwise that arm is served.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from lifelines.utils import concordance_index
from numpy.typing import NDArray

from dicomnode.analysis.risk.ensemble import hazard_logits
from dicomnode.analysis.risk.tabular import Floats, risk_of_logits
from training.data.outcomes import Outcomes, interval_targets
from training.models import recalibration
from training.models.recalibration import Evidence, Recalibration, Shrinkage

COMBINED = "combined"
#: Patients who died: from fewer, what is found of the calibration differs more from fold to fold than it corrects.
_FEW_DEATHS = 50
#: Folds that the choice needs; with fewer, patients are dealt out anew.
_FEWEST_FOLDS, _DEALT = 3, 5
#: A gain in C that is asked for: about half the standard error of a difference, but no less than the least.
_GAIN, _LEAST_GAIN = 0.12, 0.005


@dataclass(frozen=True)
class StackChoice:
    """What was chosen, and by what.

    Attributes:
        arms: positions of the arms that are used.
        recalibration: of these.
        shrinkage: of these.
        concordance: Harrell's C inside, by candidate: each arm's position, and `COMBINED`.
    """

    arms: tuple[int, ...]
    recalibration: Recalibration
    shrinkage: Shrinkage
    concordance: dict[int | str, float]


def evidence_of(risks: Floats, outcomes: Outcomes, patients: Sequence[str]) -> Evidence:
    """Return out-of-fold risks (arms, scans, intervals) and the scans' outcomes in the form to recalibrate by."""
    targets, weights = (array.astype(np.float64) for array in interval_targets(outcomes))
    numbers = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    return Evidence(hazard_logits(risks), targets, weights, numbers)


def choose(risks: Floats, outcomes: Outcomes, patients: Sequence[str], folds: NDArray[np.int64]) -> StackChoice:
    """Choose and fit.

    Args:
        risks: out-of-fold cumulative risks, (arms, scans, intervals).
        outcomes: of the scans.
        patients: of the scans.
        folds: of the scans, by patient.
    """
    whole = evidence_of(risks, outcomes, patients)
    groups = folds if len(np.unique(folds)) >= _FEWEST_FOLDS else whole.patients % _DEALT
    died = len(np.unique(whole.patients[outcomes.event]))
    concordance: dict[int | str, float] = {}
    found = {}
    for arms in _candidates(len(risks)):
        name = arms[0] if len(arms) == 1 else COMBINED
        shrinkage, predicted = _shrunk(whole, arms, groups, 1.0 if died >= _FEW_DEATHS else 2.0)
        found[name] = arms, shrinkage
        concordance[name] = _concordance(outcomes, predicted)
    best = max((name for name in found if name != COMBINED), key=lambda name: concordance[name])
    least = max(_LEAST_GAIN, _GAIN / max(died, 1) ** 0.5)
    better = COMBINED in found and concordance[COMBINED] > concordance[best] + least
    arms, shrinkage = found[COMBINED if better else best]
    fitted = recalibration.fit(whole.of(np.ones(len(whole.patients), bool), arms), shrinkage)
    return StackChoice(arms, fitted, shrinkage, concordance)


def _candidates(arms: int) -> Iterator[tuple[int, ...]]:
    yield from ((arm,) for arm in range(arms))
    if arms > 1:
        yield tuple(range(arms))


def _shrunk(
    whole: Evidence, arms: tuple[int, ...], groups: NDArray[np.int64], errors: float
) -> tuple[Shrinkage, Floats]:
    """Choose the priors, each for itself; return them and the cross-validated risks that they give."""
    everyone = whole.of(np.ones(len(whole.patients), bool), arms)
    logits = {one: np.empty_like(everyone.targets) for one in recalibration.grid(len(arms))}
    for group in np.unique(groups):
        outside, inside = whole.of(groups != group, arms), whole.of(groups == group, arms)
        for one, found in logits.items():
            found[groups == group] = recalibration.fit(outside, one).logits(inside.logits)
    losses = {one: everyone.losses(found) for one, found in logits.items()}
    best = min(losses, key=lambda one: float(losses[one].mean()))
    chosen = best
    for name in ("intercepts", "slope", "weights"):
        for width in sorted({getattr(one, name) for one in losses}):
            tried = replace(chosen, **{name: width})
            worse = losses[tried] - losses[best]
            if worse.mean() <= errors * worse.std() / len(worse) ** 0.5:
                chosen = tried
                break
    return chosen, risk_of_logits(logits[chosen])


def _concordance(outcomes: Outcomes, risks: Floats) -> float:
    """Harrell's C of the last interval's risk; half where there is nothing to measure."""
    last = outcomes.edges[-1]
    event = outcomes.event & (outcomes.years <= last)
    try:
        return float(concordance_index(np.minimum(outcomes.years, last), -risks[:, -1], event))
    except ZeroDivisionError:  # no death that anybody outlived
        return 0.5
