"""Splits grouped by patient: a file with a hash, and a proof that no patient stands on two sides.

A run has nested folds (`nested`): each outer fold is predicted by what was learnt from the others, and inside of those
inner folds choose. The demonstration has three parts (`by_patient`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import DicomnodeError, UsageError
from dicomnode.files import write_whole
from training.files import digest

PARTS = ("train", "calibrate", "test")
Rows = NDArray[np.intp]


class LeakageError(DicomnodeError):
    """What is learnt from and what is judged share a patient, or the split is not the one that was drawn."""


def assert_disjoint(patients: Sequence[str], *sides: Rows) -> None:
    """Prove that no patient stands on two sides.

    Args:
        patients: of every row.
        sides: rows of each side, for example train and test.

    Raises:
        LeakageError: a patient does.
    """
    seen: dict[str, int] = {}
    for number, rows in enumerate(sides):
        for patient in {patients[row] for row in rows}:
            if seen.setdefault(patient, number) != number:
                raise LeakageError(
                    f"the patient {patient} is on both sides of a split (sides {seen[patient]} and {number}): "
                    "the evaluation would measure memory. Draw the split again, and give each patient one pseudonym"
                )


@dataclass(frozen=True)
class Nested:
    """Patients of each outer fold; and of each outer fold's training patients those of each inner fold.

    `later`: the first outer fold holds patients of a later time. No other fold's model learns from them, and they alone
    are judged.
    """

    seed: int
    outer: tuple[tuple[str, ...], ...]
    inner: tuple[tuple[tuple[str, ...], ...], ...]
    later: bool = False

    @property
    def _content(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name != "later" or value}

    @property
    def sha256(self) -> str:
        """Digest of the split."""
        return digest(self._content)

    def judged(self, patients: Sequence[str]) -> Rows:
        """Return the indices of the scans that an evaluation is of, (scans,): all of them, or the later ones."""
        return _rows(self.outer[0], patients) if self.later else np.arange(len(patients), dtype=np.intp)

    def _never_learnt(self, number: int) -> set[str]:
        """Return the patients that an outer fold's model must not learn from."""
        return {*self.outer[number], *(self.outer[0] if self.later else ())}

    def check(self, patients: Sequence[str]) -> None:
        """Prove that the split holds each patient of the rows once, and inner folds the training patients alone.

        Raises:
            LeakageError: it does not.
        """
        everyone = [p for fold in self.outer for p in fold]
        if len(everyone) != len(set(everyone)) or set(everyone) != set(patients):
            raise LeakageError(
                "the outer folds do not contain each patient of the cohort exactly once: draw the split again"
            )
        if len(self.inner) != len(self.outer):
            raise LeakageError("not every outer fold has inner folds: draw the split again")
        for number, inner in enumerate(self.inner):
            trained = [p for part in inner for p in part]
            if len(trained) != len(set(trained)) or set(trained) != set(everyone) - self._never_learnt(number):
                raise LeakageError(
                    "inner folds do not contain each training patient exactly once: draw the split again"
                )

    def fold(self, number: int, patients: Sequence[str]) -> tuple[Rows, Rows]:
        """Return the indices of the scans, (scans,), of an outer fold: to train on, to test."""
        test = _rows(self.outer[number], patients)
        never = _rows(tuple(self._never_learnt(number)), patients)
        train = np.setdiff1d(np.arange(len(patients)), never).astype(np.intp)
        assert_disjoint(patients, train, test)
        return train, test

    def inner_folds(self, number: int, patients: Sequence[str]) -> list[tuple[Rows, Rows]]:
        """Return the indices of the scans, (scans,), of each inner fold of an outer one: to fit, to validate.

        All lie in the outer fold's training rows.
        """
        train, test = self.fold(number, patients)
        pairs = []
        for part in self.inner[number]:
            validate = _rows(part, patients)
            fit = np.setdiff1d(train, validate).astype(np.intp)
            assert_disjoint(patients, fit, validate, test)
            pairs.append((fit, validate))
        return pairs

    def save(self, path: Path) -> None:
        """Write the split and its hash as JSON."""
        write_whole(path, json.dumps({**self._content, "sha256": self.sha256}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Nested":
        """Return the split that `save` wrote.

        Raises:
            UsageError: the file is no such split.
            LeakageError: the file was changed since it was written.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            outer = tuple(tuple(fold) for fold in stored["outer"])
            inner = tuple(tuple(tuple(part) for part in fold) for fold in stored["inner"])
            split = cls(stored["seed"], outer, inner, later=bool(stored.get("later", False)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is not the split of a run ({error}): delete the run folder and start again"
            ) from None
        if split.sha256 != stored.get("sha256"):
            raise LeakageError(f"{path} has been changed since it was drawn (its sha256 differs): start a new run")
        return split


def nested(patients: Sequence[str], event: NDArray[np.bool_], seed: int, outer: int, inner: int) -> Nested:
    """Nested folds of patients, stratified by whether any of their scans is followed by an observed death.

    Args:
        patients: whose each scan is.
        event: (scans,), whether a death was observed after it.
        seed: of the shuffles.
        outer: how many outer folds, at least 2.
        inner: how many inner folds, at least 2.

    Raises:
        UsageError: too few patients died for that many folds.
    """
    died = {p for p, e in zip(patients, event, strict=True) if e}
    everyone = set(patients)
    for stratum, what in ((died, "died"), (everyone - died, "survived")):
        if len(stratum) < outer * inner:
            raise UsageError(
                f"{len(stratum)} patients of the cohort {what}, but {outer} outer x {inner} inner folds need at least "
                f"{outer * inner}. Use fewer folds (splits.outer, splits.inner) or more patients"
            )
    rng = np.random.default_rng(seed)
    folds = deal(everyone, died, outer, rng)
    within = tuple(deal(everyone - set(fold), died, inner, rng) for fold in folds)
    return Nested(seed, folds, within)


def deal(everyone: set[str], died: set[str], count: int, rng: np.random.Generator) -> tuple[tuple[str, ...], ...]:
    """Return patients in folds, those who died and the others alike.

    Each stratum is shuffled and dealt out in turn, going on where the last one ended: sizes differ by one at most.
    """
    order: list[str] = []
    for stratum in (sorted(everyone & died), sorted(everyone - died)):
        order += [stratum[i] for i in rng.permutation(len(stratum))]
    return tuple(tuple(sorted(order[number::count])) for number in range(count))


def _rows(chosen: Sequence[str], patients: Sequence[str]) -> Rows:
    wanted = set(chosen)
    return np.array([i for i, p in enumerate(patients) if p in wanted], np.intp)


@dataclass(frozen=True)
class Split:
    """Which patients belong to which part."""

    seed: int
    parts: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        everyone = [p for part in self.parts.values() for p in part]
        assert len(everyone) == len(set(everyone)), "a patient is on both sides of the split"

    def rows(self, part: str, patients: Sequence[str]) -> NDArray[np.intp]:
        """Return the indices, (scans,), of those scans whose patient, named by `patients`, belongs to `part`."""
        return _rows(self.parts[part], patients)

    @property
    def sha256(self) -> str:
        """Digest of the split as written by `save`."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the split as JSON."""
        path.write_text(self._text(), encoding="utf-8")

    def _text(self) -> str:
        return json.dumps({"seed": self.seed, "parts": {k: list(v) for k, v in self.parts.items()}}, indent=1) + "\n"


def by_patient(
    patients: Sequence[str], event: NDArray[np.bool_], seed: int, fractions: tuple[float, float, float]
) -> Split:
    """Split patients into `PARTS`, stratified by whether any of their scans is followed by an observed death.

    Args:
        patients: whose each scan is.
        event: (scans,), whether a death was observed after it.
        seed: of the shuffle.
        fractions: of train, calibrate, test; they sum to 1.

    Raises:
        ValueError: the fractions do not sum to 1, or one is not above 0.
    """
    if not np.isclose(sum(fractions), 1) or min(fractions) <= 0:
        raise ValueError(f"fractions {fractions}: give three positive fractions that sum to 1")
    died = {p for p, e in zip(patients, event, strict=True) if e}
    rng = np.random.default_rng(seed)
    parts: dict[str, list[str]] = {name: [] for name in PARTS}
    for stratum in (sorted(died), sorted(set(patients) - died)):
        order = [stratum[i] for i in rng.permutation(len(stratum))]
        cuts = np.rint(np.cumsum(fractions) * len(order)).astype(int)
        for name, start, end in zip(PARTS, [0, *cuts], cuts, strict=False):
            parts[name] += order[start:end]
    return Split(seed, {name: tuple(sorted(chosen)) for name, chosen in parts.items()})
