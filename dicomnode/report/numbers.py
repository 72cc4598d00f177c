"""How numbers are written: ml and HU whole, shares with one decimal, probabilities never as certainty."""

from typing import Final

#: Nobody survives or dies for certain: a probability beyond these, %, is written as a bound.
SURELY_NOT: Final = 1.0
SURELY: Final = 99.0


def whole(value: float) -> str:
    """Return a volume in ml, or an attenuation in HU."""
    return f"{round(value) + 0:d}"


def share(percent: float) -> str:
    """Return a measured share in per cent, without the sign: a trace is no nothing."""
    if 0 < percent < 0.05:
        return "<0.1"
    if 99.95 <= percent < 100:
        return ">99.9"
    return f"{percent:.1f}"


def probability(value: float) -> str:
    """Return a probability (0 to 1) as per cent, without the sign: «<1» and «>99» instead of 0 and 100."""
    percent = 100.0 * value
    if percent < SURELY_NOT:
        return "<1"
    if percent > SURELY:
        return ">99"
    return f"{percent:.0f}"


def probability_range(lower: float, upper: float) -> str:
    """Return two probabilities (0 to 1) as per cent, without the sign."""
    low, high = probability(lower), probability(upper)
    return low if low == high else f"{low} to {high}"


def signed(value: float, decimals: int) -> str:
    """Return a change with its sign; what rounds to nothing has none."""
    rounded = round(value, decimals)
    return f"{rounded:+.{decimals}f}" if rounded else f"{0:.{decimals}f}"


def percent_value(value: float) -> float:
    """Return a share in per cent as a structured report holds it: one decimal, or two digits of a trace.

    What is not 0 or 100 must not read as 0 or 100.
    """
    if round(value, 1) not in (0.0, 100.0) or value in (0.0, 100.0):
        return round(value, 1)
    rest = value if value < 50 else 100.0 - value
    small = float(f"{rest:.2g}")
    return small if value < 50 else round(100.0 - small, 12)
