"""Splits grouped by patient: a file with a hash, and a proof that no patient stands on two sides."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "calibrate", "test")


@dataclass(frozen=True)
class Split:
    """Which patients belong to which part."""

    seed: int
    parts: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        everyone = [p for part in self.parts.values() for p in part]
        assert len(everyone) == len(set(everyone)), "a patient stands on both sides of the split"

    def rows(self, part: str, patients: Sequence[str]) -> NDArray[np.intp]:
        """The indices of the scans whose patient belongs to `part`; `patients` names each scan's patient."""
        chosen = set(self.parts[part])
        return np.array([i for i, p in enumerate(patients) if p in chosen], np.intp)

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
        patients, event: per scan.
        seed: of the shuffle.
        fractions: of train, calibrate, test; they sum to 1.
    """
    if not np.isclose(sum(fractions), 1) or min(fractions) <= 0:
        raise ValueError(f"fractions {fractions}: give three shares above 0 that sum to 1")
    died = {p for p, e in zip(patients, event, strict=True) if e}
    rng = np.random.default_rng(seed)
    parts: dict[str, list[str]] = {name: [] for name in PARTS}
    for stratum in (sorted(died), sorted(set(patients) - died)):
        order = [stratum[i] for i in rng.permutation(len(stratum))]
        cuts = np.rint(np.cumsum(fractions) * len(order)).astype(int)
        for name, start, end in zip(PARTS, [0, *cuts], cuts, strict=False):
            parts[name] += order[start:end]
    return Split(seed, {name: tuple(sorted(chosen)) for name, chosen in parts.items()})
