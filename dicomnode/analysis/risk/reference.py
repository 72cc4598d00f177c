"""What a bundle's models were made on, and how far outside it a scan lies.

`reference.json` in the bundle holds no patient: medians and spreads, quantiles with at least five patients beyond each,
shares of scanners' words that at least five patients have, a matrix of correlations, and quantiles of the score below.
Digests in model.toml seal it; a bundle of before has none, and its scans get no distance.

The score is the largest of three, each in units of what 95 % of the training patients stay below:

- the Mahalanobis distance over robustly scaled numbers (an unusual combination), with the covariance shrunk as in
  Ledoit and Wolf 2004, J Multivariate Anal 88:365;
- the largest deviation of what is stated of patient and acquisition (age, slice spacing): another age group moves one
  number of many, which the distance dilutes;
- how rare the scan's words are (manufacturer, kernel family, sex).

Its limit is conformal: fitted on one half of the patients, the score's quantile is taken over the other half, a scan a
patient, so it holds whatever the score is made of (Vovk, Gammerman and Shafer 2005, «Algorithmic Learning in a Random
World»; as a test for outliers Bates et al. 2023, Ann Stat 51:149). The rank is that which keeps the share of flagged
scans of the same population at or below 5 % with 95 % confidence over the draw of that half, and not on average alone
(Vovk 2012, ACML, «Conditional validity of inductive conformal predictors»).
"""

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicomnode.analysis.findings import Flag, PopulationDistance
from dicomnode.analysis.risk.scan_inputs import Scale, ScanInputs, is_stated, on_scale, words_of
from dicomnode.errors import BundleError
from dicomnode.files import parse_toml

NAME: Final = "reference.json"
FORMAT: Final = 1
#: Of the quantiles that are kept of each number.
LEVELS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
#: No number counts for more: what lies further out is outside, however far.
_FURTHEST: Final = 8.0
#: Of words that nobody in the training population had, or so few that they are not named; of the unit of rarity.
_UNSEEN, _RARE_UNIT, _COMMON = 6.0, 3.0, 0.05
#: A number or word is named as a reason where it alone deviates by so many of its units.
_NAMED: Final = 0.9
_MOST_NAMED: Final = 4
NO_REFERENCE: Final = "no reference distribution"

_Share = Annotated[float, Field(ge=0, le=1)]


class _ReferenceRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReferenceNumber(_ReferenceRecord):
    """One number of the training scans.

    Attributes:
        name: as in features, or `acquisition.*`.
        scale: on which it is compared.
        middle: median on that scale.
        below, above: robust standard deviation on either side of it, on that scale.
        quantiles: at `LEVELS`, of the number itself; equal ones stand for each other.
        at_most: share of patients at or below each quantile as rounded: ties and few patients move it off its level.
    """

    name: str
    scale: Scale
    middle: float
    below: Annotated[float, Field(gt=0)]
    above: Annotated[float, Field(gt=0)]
    quantiles: Annotated[tuple[float, ...], Field(min_length=len(LEVELS), max_length=len(LEVELS))]
    at_most: Annotated[tuple[_Share, ...], Field(min_length=len(LEVELS), max_length=len(LEVELS))]

    @model_validator(mode="after")
    def _rise(self) -> Self:
        for name, values in (("quantiles", self.quantiles), ("at_most", self.at_most)):
            if list(values) != sorted(values):
                raise ValueError(f"{name} must rise")
        return self

    def deviation(self, value: float) -> float:
        """Return how many spreads a value lies above (or, negative, below) the middle."""
        shown = on_scale(self.scale, value)
        away = (shown - self.middle) / (self.above if shown > self.middle else self.below)
        return max(-_FURTHEST, min(_FURTHEST, away))


class ReferenceWord(_ReferenceRecord):
    """One word of the training scans: the share of patients by value; `rest` have values that few have."""

    name: str
    shares: dict[str, _Share]
    rest: _Share

    def rarity(self, value: str) -> float:
        """Return how rare a value is: 0 for a common one."""
        share = self.shares.get(value)
        if share is None:
            return _UNSEEN
        return 0.0 if share >= _COMMON else min(_UNSEEN, math.sqrt(2 * math.log(_COMMON / max(share, 1e-9))))


class ReferenceDistribution(_ReferenceRecord):
    """`reference.json`.

    Attributes:
        patients: how many it tells of.
        precision: inverse of the covariance of the deviations, in the order of `numbers`.
        distance_unit, extreme_unit: what 95 % of the patients stay below.
        limit: scores above are outside.
        levels, scores: share of patients, not used to fit the score, whose score is at most the one beside it.
    """

    format: Literal[1] = 1
    patients: Annotated[int, Field(ge=1)]
    numbers: Annotated[tuple[ReferenceNumber, ...], Field(min_length=1, max_length=64)]
    words: tuple[ReferenceWord, ...]
    precision: tuple[tuple[float, ...], ...]
    distance_unit: Annotated[float, Field(gt=0)]
    extreme_unit: Annotated[float, Field(gt=0)]
    limit: Annotated[float, Field(gt=0)]
    levels: tuple[_Share, ...]
    scores: tuple[float, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        count = len(self.numbers)
        if len(self.precision) != count or any(len(row) != count for row in self.precision):
            raise ValueError(f"precision needs a row and a column for each of the {count}")
        if np.linalg.eigvalsh(np.array(self.precision)).min() <= 0:
            raise ValueError("precision is not positive definite")
        names = [*(one.name for one in self.numbers), *(one.name for one in self.words)]
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice")
        if len(self.levels) != len(self.scores) or not self.levels or list(self.levels) != sorted(self.levels):
            raise ValueError("levels and scores must be of one length, and levels must rise")
        if list(self.scores) != sorted(self.scores):
            raise ValueError("scores must rise")
        return self

    @cached_property
    def _precision(self) -> NDArray[np.float64]:
        return np.array(self.precision)

    @cached_property
    def stated(self) -> NDArray[np.intp]:
        """Places of the numbers that are stated (`is_stated`), (stated,)."""
        return np.flatnonzero([is_stated(one.name) for one in self.numbers])

    def score(self, inputs: ScanInputs) -> float:
        """Return how far outside a scan lies, without a unit: about 1 is what 5 % of the training patients exceed."""
        away = self.deviations(inputs)
        distance = math.sqrt(max(0.0, float(away @ self._precision @ away)))
        rarity = math.sqrt(sum(one**2 for _, one in self._rarities(inputs)))
        extreme = float(np.abs(away[self.stated]).max(initial=0.0))
        return max(distance / self.distance_unit, extreme / self.extreme_unit, rarity / _RARE_UNIT)

    def distance(self, inputs: ScanInputs) -> PopulationDistance | None:
        """Return where a scan lies; None where less than half of its numbers are known."""
        known = [one.name for one in self.numbers if _known(inputs, one.name)]
        if 2 * len(known) < len(self.numbers):
            return None
        score = self.score(inputs)
        return PopulationDistance(
            score=round(score, 3),
            limit=self.limit,
            percentile=round(100 * float(np.interp(score, self.scores, self.levels)), 1),
            outside=score > self.limit,
            named=self._named(inputs) if score > self.limit else (),
            patients=self.patients,
        )

    def deviations(self, inputs: ScanInputs) -> NDArray[np.float64]:
        """Return the deviations, (numbers,), in spreads. What is not known counts as the median: it tells nothing."""
        return np.array(
            [one.deviation(inputs.numbers[one.name]) if _known(inputs, one.name) else 0.0 for one in self.numbers]
        )

    def _rarities(self, inputs: ScanInputs) -> list[tuple[ReferenceWord, float]]:
        return [(one, one.rarity(inputs.words[one.name])) for one in self.words if inputs.words.get(one.name)]

    def _named(self, inputs: ScanInputs) -> tuple[str, ...]:
        """Return what deviates most, with what is usual; no value of the patient, since messages may be logged."""
        away = np.abs(self.deviations(inputs)) / self.extreme_unit
        reasons = [(float(a), _usual(one)) for one, a in zip(self.numbers, away, strict=True)]
        reasons += [(r / _RARE_UNIT, _seen(one)) for one, r in self._rarities(inputs)]
        found = [text for a, text in sorted(reasons, key=lambda one: -one[0]) if a >= _NAMED]
        return tuple(found[:_MOST_NAMED])


def flags(distance: PopulationDistance | None) -> tuple[Flag, ...]:
    """Return the flag of a scan that lies outside."""
    if distance is None or not distance.outside:
        return ()
    why = "; ".join(distance.named) or "the combination of its measurements is unusual"
    text = (
        "This scan lies outside the population the risk model was made on, further than "
        f"{distance.percentile:.0f} % of its patients: {why}."
    )
    return (Flag("outside-population", "warning", text),)


def of_folder(folder: Path) -> ReferenceDistribution | None:
    """Return the reference of a bundle without loading its models; None where it has none, or there is no bundle.

    Raises:
        BundleError: the file is not the one that model.toml lists, is listed and cannot be read, or does not fit.
    """
    try:
        listed = parse_toml((folder / "model.toml").read_text(encoding="utf-8")).get("files")
    except (OSError, ValueError):
        return None
    try:
        text = (folder / NAME).read_bytes()
    except OSError as error:
        if not isinstance(listed, dict) or NAME not in listed:
            return None
        why = f"is listed in model.toml and cannot be read ({error.strerror})"
        raise BundleError(f"{folder / NAME} {why}: copy the bundle again") from None
    if not isinstance(listed, dict) or listed.get(NAME) != hashlib.sha256(text).hexdigest():
        raise BundleError(f"{folder / NAME} is not the file listed in model.toml: copy the bundle again")
    return parse(text, folder / NAME)


def parse(text: bytes, place: Path) -> ReferenceDistribution:
    """Return the content of reference.json; `place` names the file in messages.

    Raises:
        BundleError: it does not fit.
    """
    try:
        stored = json.loads(text)
        if isinstance(stored, dict) and isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
            raise BundleError(f"{place} has format {stored['format']}, this version reads {FORMAT}: update dicomnode")
        return ReferenceDistribution.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{place}: {where}: {first['msg']}".replace(": :", ":")) from None
    except ValueError as error:
        raise BundleError(f"{place}: {error}") from None


def _known(inputs: ScanInputs, name: str) -> bool:
    return math.isfinite(inputs.numbers.get(name, math.nan))


def _usual(one: ReferenceNumber) -> str:
    return f"{words_of(one.name)} (90 % of its patients: {one.quantiles[0]:.4g} to {one.quantiles[-1]:.4g})"


def _seen(one: ReferenceWord) -> str:
    common = sorted(one.shares, key=lambda value: -one.shares[value])[:_MOST_NAMED]
    return f"{words_of(one.name)} (its patients: {', '.join(common) or 'others'})"


def shares_in_bins(one: ReferenceNumber, values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of the training population and of some values between the quantiles, each (bins,), 0 to 1.

    Quantiles that coincide make one bin, whose share is theirs together.
    """
    edges = sorted(set(one.quantiles))
    at_most = dict(zip(one.quantiles, one.at_most, strict=True))
    expected = np.diff([0.0, *(at_most[edge] for edge in edges), 1.0])
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return expected, counts / max(len(values), 1)
