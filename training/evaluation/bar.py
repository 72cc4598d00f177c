"""The bar of the gate: thresholds that belong to the node, in `gate.toml` of its weights folder, not to a run.

Who is judged does not set the bar: what a run's own `[gate]` asks for sets nothing, and is marked where it departs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from dicomnode.errors import UsageError
from dicomnode.files import parse_toml
from training.data.outcomes import HORIZONS_YEARS, LAST_HORIZON_YEARS, middle_of
from training.toml_table import TomlTable

NAME = "gate.toml"


class GateBar(TomlTable):
    """What a bundle must achieve before it may go into service (`training compare`)."""

    horizon_years: int | None = Field(
        None,
        ge=1,
        le=LAST_HORIZON_YEARS,
        description=f"horizon to be judged, 1 to {LAST_HORIZON_YEARS} years; default: the middle one of the run's",
    )
    margin: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="non-inferiority margin: how far below 0 the AUC difference's interval may reach, 0 to 0.5",
    )
    largest_loss: float = Field(
        0.02, ge=0, le=0.5, description="how far below 0 the AUC difference itself may be, 0 to 0.5, at most the margin"
    )
    calibration_slope: tuple[float, float] = Field(
        (0.8, 1.25), description="lowest and highest acceptable slope: above 0 to 1, and 1 to 100"
    )
    calibration_intercept: float = Field(
        0.3, ge=0, le=10, description="largest acceptable calibration-in-the-large, in absolute value, 0 to 10"
    )

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        low, high = self.calibration_slope
        if not 0 < low <= 1 <= high <= 100:
            raise ValueError(f"calibration_slope = [{low:g}, {high:g}]: give a range around 1 within 0 and 100")
        if self.largest_loss > self.margin:
            raise ValueError(f"largest_loss = {self.largest_loss:g} is above the margin, {self.margin:g}: lower it")
        return self

    @property
    def departures(self) -> tuple[str, ...]:
        """Where it is not the default: "margin 0.1 (default 0.05)"."""
        return departures(self.model_dump())


def departures(asked: Mapping[str, object], horizons: Sequence[int] = HORIZONS_YEARS) -> tuple[str, ...]:
    """Return where thresholds that were asked for, also ones that cannot be, are not the default.

    Args:
        asked: thresholds; None is none.
        horizons: of the run (years), whose middle one is the default.
    """
    default = GateBar().model_dump(mode="json") | {"horizon_years": middle_of(horizons)}
    asked = {name: value for name, value in asked.items() if value is not None}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    return tuple(
        f"{name} {_text(plain[name])} (default {_text(value)})"
        for name, value in default.items()
        if name in plain and plain[name] != value
    )


def _text(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def load(weights: Path | None) -> tuple[GateBar, str]:
    """Return the bar of a weights folder, and where it comes from, in words; the default's where there is no file.

    Raises:
        UsageError: `gate.toml` is not TOML, has an unknown key, or a threshold that cannot be.
    """
    path = None if weights is None else weights / NAME
    if path is None or not path.exists():
        return GateBar(), "the defaults"
    try:
        return GateBar.model_validate(parse_toml(path.read_text(encoding="utf-8"))), str(path)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = f"; known here: {', '.join(GateBar.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise UsageError(f"{path}: {key + ': ' if key else ''}{first['msg']}{known}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
