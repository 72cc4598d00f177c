"""`held_out.json` of a bundle: which patients each of its fold models has not seen, and the stack without them.

By it a later gate asks, of each patient, a model that has not learnt from that patient. The bundle holds no pseudonym:
a patient is a salted digest of one, which only who has the registry can compare with. A bundle of before has no such
file, and nothing of it is needed to serve.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomnode.errors import BundleError, UsageError
from training.data.splits import LeakageError, Nested
from training.models.stacking import Stack

NAME = "held_out.json"
_FORMAT = 1


@dataclass(frozen=True)
class HeldOut:
    """What one bundle's fold models have not seen.

    Attributes:
        salt: of the patients' digests.
        patients: digests of those that each fold model has not seen, by fold.
        stacks: of each fold, fitted without its patients; None where that one uses an arm that the bundle lacks.
        recalibrated: digests of the patients of a site that the bundle was recalibrated to.
    """

    salt: str
    patients: tuple[frozenset[str], ...]
    stacks: tuple[Stack | None, ...]
    recalibrated: frozenset[str] = frozenset()

    def knows(self, patient: str) -> bool:
        """Whether the bundle was made with a patient: trained on, or recalibrated by."""
        return self.fold(patient) is not None or digest(self.salt, patient) in self.recalibrated

    def fold(self, patient: str) -> int | None:
        """Return the fold whose model has not seen a patient; None: none of them has."""
        name = digest(self.salt, patient)
        return next((number for number, of in enumerate(self.patients) if name in of), None)


def digest(salt: str, patient: str) -> str:
    """Return what stands for a patient."""
    return hashlib.sha256(f"{salt}:{patient}".encode()).hexdigest()[:16]


def write(run: Path, folder: Path, arms: Sequence[str]) -> None:
    """Write a run's `held_out.json` into the folder of its bundle; nothing where the run's split is not at hand.

    Args:
        run: the run folder.
        folder: of the bundle.
        arms: those that the bundle holds.
    """
    try:
        outer = Nested.load(run / "splits.json").outer
        stored = json.loads((run / "ensemble.json").read_text("utf-8"))["cross_fitted"]
        stacks = {int(one["fold"]): one for one in stored}
    except (OSError, ValueError, LookupError, UsageError, LeakageError):
        return
    salt = secrets.token_hex(16)
    folds = [
        {
            "patients": sorted(digest(salt, patient) for patient in patients),
            "stack": _bundled(stacks.get(number), arms),
        }
        for number, patients in enumerate(outer)
    ]
    (folder / NAME).write_text(json.dumps({"format": _FORMAT, "salt": salt, "folds": folds}) + "\n", encoding="utf-8")


def recalibrate(source: Path, folder: Path, intercept: float, slope: float, patients: Sequence[str]) -> None:
    """Write the `held_out.json` of a bundle as it is for the same models, recalibrated; nothing where it has none.

    Args:
        source: the bundle's folder.
        folder: of the recalibrated bundle.
        intercept: of the recalibration.
        slope: of the recalibration.
        patients: of the site, whom it was fitted on.
    """
    if not (source / NAME).is_file():
        return
    stored = json.loads((source / NAME).read_text("utf-8"))
    for fold in stored["folds"]:
        if (stack := fold["stack"]) is not None:
            stack["slope"] *= slope
            stack["intercepts"] = [slope * one + intercept for one in stack["intercepts"]]
    stored["recalibrated"] = sorted(digest(stored["salt"], patient) for patient in set(patients))
    (folder / NAME).write_text(json.dumps(stored) + "\n", encoding="utf-8")


def _bundled(stack: dict[str, object] | None, arms: Sequence[str]) -> dict[str, object] | None:
    if stack is None:
        return None
    found = Stack.from_dict(stack)
    used = {arm for arm, weight in zip(found.arms, found.weights, strict=True) if weight > 0}
    usable = used <= set(arms) and found.slope > 0
    kept = ("arms", "weights", "slope", "intercepts", "edges_years")
    return {k: stack[k] for k in kept if k in stack} if usable else None


def read(folder: Path) -> HeldOut | None:
    """Return what a bundle says; None where it says nothing. Its digest is checked by who loads the bundle.

    Raises:
        BundleError: the file is none of this format.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored["format"] != _FORMAT:
            raise BundleError(f"{path} has format {stored['format']!r}, this version reads {_FORMAT}: update dicomnode")
        folds = stored["folds"]
        return HeldOut(
            salt=str(stored["salt"]),
            patients=tuple(frozenset(map(str, fold["patients"])) for fold in folds),
            stacks=tuple(None if fold["stack"] is None else Stack.from_dict(fold["stack"]) for fold in folds),
            recalibrated=frozenset(map(str, stored.get("recalibrated", ()))),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{path} does not say what was held out ({error!r}): make the bundle again") from None
