"""A bundle judged on patients that the answering model has not seen, and on whom that was.

The mean of all fold models, which a node reports, has seen all but the new patients, so it cannot be judged on the
others. Each patient is answered for by one fold model instead: the one that was trained without the patient, or, of a
patient that none of them has seen, one by lot. So two bundles are compared on equal terms, model for model, however
many patients they share.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.ensemble import combined
from dicomnode.errors import RefusedError, UsageError
from dicomnode.words.numerals import plural
from training.bundle import held_out
from training.bundle.held_out import HeldOut
from training.models.arm import Data, Rows
from training.models.stacking import Stack
from training.progress_type import ProgressCallback
from training.release import node_predictions


@dataclass(frozen=True)
class JudgedRisks:
    """What a bundle says of the scans of a cohort.

    Attributes:
        risks: cumulative risk at the end of each interval, (scans, intervals); NaN where the bundle has no model left
            that has not seen the patient.
        on: on whom it is judged, in words.
    """

    risks: NDArray[np.float64]
    on: str

    @property
    def rows(self) -> Rows:
        """The scans that it can be judged on."""
        return np.flatnonzero(np.isfinite(self.risks).all(axis=1))


def judge(bundle: Bundle, data: Data, split_sha256: str, folds: Rows, progress: ProgressCallback) -> JudgedRisks:
    """Ask a bundle about each scan.

    Args:
        bundle: what to ask.
        data: the scans.
        split_sha256: of the run that the scans come from: a bundle of before that has the same split has its folds.
        folds: of each scan, in that split.
        progress: told about each scan.

    Raises:
        UsageError: a scan lacks what the bundle needs: its volume, or measured numbers.
        BundleError: the bundle does not say rightly what was held out.
    """
    said = held_out.read(bundle.folder)
    final = _final(bundle)
    counts = [len(arm.nets) for arm in bundle.models.networks] + [len(arm.models) for arm in bundle.models.tables]
    whole = min(counts)  # a bundle may keep fewer networks than there are folds
    if said is not None:
        unseen = {patient: said.fold(patient) for patient in dict.fromkeys(data.patients)}
    elif bundle.manifest.population.split_sha256 == split_sha256:
        unseen = dict(zip(data.patients, map(int, folds), strict=True))
    else:
        return _as_served(bundle, data, final, progress)
    risks = np.full((len(data.cohort), len(final.intercepts)), np.nan)
    for row, by_arm in _answers(bundle, data, progress):
        patient = data.patients[row]
        known = unseen[patient]
        fold = _lot(patient, whole) if known is None else known
        if fold < whole:
            stack = final if known is None else _stack(said, fold, final)
            risks[row] = _risk(stack, {name: found[fold] for name, found in by_arm.items()})
    return JudgedRisks(risks, _on(unseen, whole))


def of_run(predicted: Mapping[str, NDArray[np.float64]], folds: Rows, bundle: Bundle) -> NDArray[np.float64]:
    """Return what `judge` would say of a run's own bundle, from the run's out-of-fold risks by arm: (scans, intervals).

    Args:
        predicted: by arm, (scans, intervals).
        folds: of each scan.
        bundle: of the run.
    """
    said, final = held_out.read(bundle.folder), _final(bundle)
    found = np.empty_like(next(iter(predicted.values())))
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        found[rows] = _risk(_stack(said, int(fold), final), {name: risks[rows] for name, risks in predicted.items()})
    return found


def _final(bundle: Bundle) -> Stack:
    ensemble, edges = bundle.manifest.ensemble, tuple(map(float, bundle.manifest.edges_years))
    return Stack(tuple(ensemble.weights), tuple(ensemble.weights.values()), ensemble.slope, ensemble.intercepts, edges)


def _stack(said: HeldOut | None, fold: int, final: Stack) -> Stack:
    own = None if said is None else said.stacks[fold]
    return final if own is None else own


def _risk(stack: Stack, by_arm: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    used = [(arm, weight) for arm, weight in zip(stack.arms, stack.weights, strict=True) if weight > 0]
    return combined([by_arm[arm] for arm, _ in used], [weight for _, weight in used], stack.slope, stack.intercepts)


def _lot(patient: str, models: int) -> int:
    """Return the model that answers for a patient that none has seen: always the same one."""
    return int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) % models


def _answers(
    bundle: Bundle, data: Data, progress: ProgressCallback
) -> "list[tuple[int, Mapping[str, NDArray[np.float64]]]]":
    """Ask about every scan, the earlier first: networks remember a prior scan."""
    found = []
    for row, answer in node_predictions.answers(bundle, data, progress):
        if isinstance(answer, RefusedError):
            name = data.cohort["scan"].iloc[row]
            raise UsageError(f"{bundle.folder} cannot be applied to the scan {name}: {answer.text}")
        found.append((row, answer.by_arm))
    return found


def _as_served(bundle: Bundle, data: Data, final: Stack, progress: ProgressCallback) -> JudgedRisks:
    """Judge by the mean of all fold models, of a bundle that does not say whom they have seen."""
    risks = np.empty((len(data.cohort), len(final.intercepts)))
    for row, by_arm in _answers(bundle, data, progress):
        models = max(len(found) for found in by_arm.values())
        members = {name: found[np.arange(models) % len(found)] for name, found in by_arm.items()}
        risks[row] = _risk(final, members).mean(axis=0)
    return JudgedRisks(
        risks,
        f"{plural(len(set(data.patients)), 'patient')}, by the mean of its models: the bundle in service does not say "
        "whom it was trained on, and looks better than it is if that was these patients; make it anew from its run "
        "with `training bundle` to have it judged fairly",
    )


def _on(unseen: Mapping[str, int | None], whole: int) -> str:
    new = sum(fold is None for fold in unseen.values())
    shared = sum(fold is not None and fold < whole for fold in unseen.values())
    lost = len(unseen) - new - shared
    parts = []
    if shared:
        parts.append(
            f"{plural(shared, 'patient')} that it was trained on, each by the model that has not seen the patient"
        )
    if new:
        parts.append(f"{plural(new, 'patient')} that it has never seen")
    text = " and ".join(parts) or "nobody"
    return text + (f"; {plural(lost, 'patient')} left out, for whom it has no such model" if lost else "")
