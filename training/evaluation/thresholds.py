"""The risk from which a scan counts as high: one for all horizons, or one for each.

A risk of 0.2 within a year and within five are not the same patient: where a decision hangs on the horizon, so does its
threshold.
"""

from collections.abc import Mapping, Sequence

from dicomnode.errors import UsageError

#: One number, one for each horizon in their order, or by year.
Threshold = float | tuple[float, ...] | dict[int, float]


def checked(value: object) -> Threshold:
    """Return what a person wrote as a `Threshold`.

    Raises:
        ValueError: it is no risk between 0 and 1, nor a list or a table by year of such.
    """
    if isinstance(value, Mapping):
        try:
            return {int(str(year)): _risk(one) for year, one in value.items()}
        except ValueError as error:
            raise ValueError(f"{error}; a table has whole years as its keys") from None
    if isinstance(value, list | tuple):
        return tuple(map(_risk, value))
    return _risk(value)


def _risk(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"{value!r} is not a risk between 0 and 1")
    return float(value)


def by_horizon(threshold: float | Sequence[float] | Mapping[int, float], horizons: Sequence[int]) -> dict[int, float]:
    """Return the threshold of each horizon, years.

    Raises:
        UsageError: there are not as many as horizons, or other years.
    """
    told = ", ".join(map(str, horizons))
    if isinstance(threshold, Mapping):
        if set(threshold) != set(horizons):
            years = ", ".join(map(str, sorted(threshold)))
            raise UsageError(f"threshold: it has the years {years}, the horizons are {told}: give one for each of them")
        return {year: float(threshold[year]) for year in horizons}
    if isinstance(threshold, Sequence):
        if len(threshold) != len(horizons):
            raise UsageError(
                f"threshold: {len(threshold)} numbers for {len(horizons)} horizons ({told} years): give one number, or "
                "one for each horizon"
            )
        return dict(zip(horizons, map(float, threshold), strict=True))
    return dict.fromkeys(horizons, float(threshold))


def text_of(thresholds: Mapping[int, float]) -> str:
    """Return the thresholds in words: "0.2", or "0.1 at 1 y, 0.2 at 3 y"."""
    if len(set(thresholds.values())) == 1:
        return f"{next(iter(thresholds.values())):g}"
    return ", ".join(f"{one:g} at {year} y" for year, one in thresholds.items())
