"""What a model takes beside the image: each covariate's type, unit and range, and how a value becomes a number.

Declared once, by whoever brings the table; training and node encode by the same code. A number stands for itself, a
category for an indicator variable each but the first, which is the reference.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dicomnode.errors import RefusedError

#: What the names of features begin with that are covariates.
PREFIX = "covariates."
_LONGEST = 64


class Covariate(BaseModel):
    """One covariate as a registry, a run's settings and a bundle declare it.

    Attributes:
        name: lower-case letters, digits and underscores.
        type: a number, or one of some categories.
        unit: of a number.
        range: lowest and highest value of a number that the model is made for.
        categories: of a category; the first is the reference.
        missing: "refuse": without a value there is no risk; "median": the median of the training population stands in,
            and a flag says so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    type: Literal["number", "category"]
    unit: str = ""
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] = ()
    missing: Literal["refuse", "median"] = "refuse"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.type == "number":
            if self.categories or self.range is None or not self.unit.strip():
                raise ValueError(f'{self.name}: a number has a unit ("1" for none) and a range, and no categories')
            if not self.range[0] < self.range[1]:
                raise ValueError(f"{self.name}: range {list(self.range)}: the first number must be the lower one")
            return self
        if self.range is not None or self.unit:
            raise ValueError(f"{self.name}: a category has categories, and neither unit nor range")
        if len(self.categories) < 2:
            raise ValueError(f"{self.name}: name at least two categories; the first is the reference")
        if len({c.casefold() for c in self.categories}) < len(self.categories):
            raise ValueError(f"{self.name}: categories {list(self.categories)} are not distinct (case does not count)")
        if odd := [c for c in self.categories if not _is_word(c)]:
            raise ValueError(
                f"{self.name}: {odd[0]!r} is no category: up to {_LONGEST} printable characters, no space around them"
            )
        return self

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that it becomes."""
        if self.type == "number":
            return (f"{PREFIX}{self.name}",)
        return tuple(f"{PREFIX}{self.name}={category}" for category in self.categories[1:])

    @property
    def described(self) -> str:
        """Type, unit and range, or the categories, in words."""
        if self.range is not None:
            low, high = self.range
            return f"{low:g} to {high:g}" + ("" if self.unit == "1" else f" {self.unit}")
        return f"one of {', '.join(self.categories)} (reference: {self.categories[0]})"

    def accepts(self, value: object) -> bool:
        """Tell whether a value is within the range, or one of the categories."""
        if self.range is None:
            return value in self.categories
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.range[0] <= value <= self.range[1]

    def encoded(self, value: object) -> dict[str, float]:
        """Return the features of a value that `accepts` holds for."""
        if self.range is not None and isinstance(value, int | float):
            return {self.features[0]: float(value)}
        return {name: float(name == f"{PREFIX}{self.name}={value}") for name in self.features}


def encoded(declared: Iterable[Covariate], given: Mapping[str, object]) -> dict[str, float]:
    """Return the features of what is known of a patient; what is not known, or not declared, has none.

    Args:
        declared: by the bundle.
        given: values by name, numbers or the words of categories.

    Raises:
        RefusedError: covariate-out-of-range.
    """
    found: dict[str, float] = {}
    for one in declared:
        value = given.get(one.name)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        if not one.accepts(value):
            raise RefusedError("covariate-out-of-range", _outside(one))
        found |= one.encoded(value)
    return found


def check(declared: Iterable[Covariate], features: Mapping[str, float], needed: Collection[str]) -> None:
    """Refuse what a model was not made for; the texts name no patient's value.

    Args:
        declared: by the bundle.
        features: of a scan, by name.
        needed: names of the features that the models take.

    Raises:
        RefusedError: covariate-missing, or covariate-out-of-range.
    """
    lacking = []
    for one in declared:
        taken = [name for name in one.features if name in needed]
        if not taken:
            continue
        values = [features.get(name, math.nan) for name in one.features]
        known = [value for value in values if math.isfinite(value)]
        if any(not math.isfinite(features.get(name, math.nan)) for name in taken):
            if one.missing == "refuse":
                lacking.append(one)
            if one.range is not None or not known:
                continue
        if one.range is not None:
            fits = one.range[0] <= values[0] <= one.range[1]
        else:
            fits = all(value in (0.0, 1.0) for value in known) and sum(known) <= 1
        if not fits:
            raise RefusedError("covariate-out-of-range", _outside(one))
    if lacking:
        named = "; ".join(f"{one.name} ({one.described})" for one in lacking)
        raise RefusedError("covariate-missing", f"the model needs covariates that are not known: {named}")


def _outside(one: Covariate) -> str:
    return f"{one.name} is outside what the model was made for: {one.described}"


def _is_word(text: str) -> bool:
    return bool(text) and len(text) <= _LONGEST and text == text.strip() and text.isprintable()
