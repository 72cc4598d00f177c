"""All settings of a run: one TOML file, validated whole before anything is computed. Unknown keys are errors."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from dicomnode.errors import UsageError
from dicomnode.files import parse_toml
from training.data import covariate_types, former_names
from training.data.follow_up import Transplant
from training.data.outcomes import HORIZONS_YEARS, LAST_HORIZON_YEARS
from training.data.split_kinds import By, SplitAsked, SplitKind, cut_error
from training.evaluation import thresholds
from training.evaluation.bar import GateBar
from training.evaluation.thresholds import Threshold
from training.explanation.settings import ExplanationSettings
from training.features.settings import FeatureSettings
from training.models.baseline_settings import BaselineSettings
from training.models.encoder_settings import EncoderSettings
from training.models.tabular_settings import RadiomicsSettings
from training.run.provenance_settings import ProvenanceSettings
from training.toml_table import TomlTable


class CohortSettings(TomlTable):
    """`[cohort]`."""

    transplant: Transplant = Field(
        "censor",
        description="a lung transplant counts as death ('event'), ends follow-up ('censor'), or is ignored ('ignore')",
    )


class SplitSettings(TomlTable):
    """`[splits]`."""

    kind: SplitKind = Field(
        "patients",
        description="'patients': by lot; 'sites': each site predicted by the others; 'temporal': later patients "
        "predicted by earlier ones",
    )
    outer: int = Field(5, ge=2, le=20, description="outer folds, each predicted in turn, 2 to 20")
    inner: int = Field(3, ge=2, le=10, description="inner folds within each, for model selection, 2 to 10")
    by: By = Field(
        "site", description="what a site is: 'site' of groups.csv, or the scans' manufacturer, model or kernel_family"
    )
    groups: Path | None = Field(None, description="CSV: patient, site, first_scan; default: groups.csv of the registry")
    cut: str = Field(
        "", description="temporal: first scans from this year or date on are judged, such as 2014; empty: by share"
    )
    share: float = Field(0.7, gt=0, lt=1, description="temporal: share of the patients, the earliest, to learn from")

    @field_validator("cut")
    @classmethod
    def _day(cls, text: str) -> str:
        if wrong := cut_error(text):
            raise ValueError(wrong)
        return text

    @property
    def asked(self) -> SplitAsked:
        """As `training.data.split_kinds` takes it."""
        return SplitAsked(self.kind, self.outer, self.inner, self.by, self.groups, self.cut, self.share)


class EvaluationSettings(TomlTable):
    """`[evaluation]`."""

    bootstrap: int = Field(1000, ge=0, le=100_000, description="patient-level bootstrap samples")
    threshold: Threshold = Field(
        0.2,
        description="risk at or above which a scan counts as high risk, between 0 and 1: one number, one for each "
        "horizon in their order, or a table by year",
    )

    @field_validator("threshold", mode="before")
    @classmethod
    def _risks(cls, value: object) -> Threshold:
        return thresholds.checked(value)


class BundleSettings(TomlTable):
    """`[bundle]`."""

    make: bool = Field(True, description="whether to write a bundle at the end")
    name: str = Field("ssc-ild-risk", min_length=1, max_length=64, description="model name, 1 to 64 characters")
    version: str = Field("1", min_length=1, max_length=32, description="model version")


class RunSettings(TomlTable):
    """A run. Paths are relative to the TOML file's folder."""

    registry: Path = Field(
        description="registry folder, as written by `dicomnode registry export` or `training synthetic`"
    )
    outcomes: Path = Field(description="CSV: patient, death_date, last_contact_date, transplant_date")
    covariates: Path | None = Field(None, description="CSV: patient, date, name, value, unit")
    covariate_types: dict[str, object] = Field(
        {}, description="covariates beside age, sex and lung function: a table each, with type, unit and range"
    )
    provenance: ProvenanceSettings = ProvenanceSettings()
    out: Path = Field(description="the run folder")
    seed: int = Field(1, ge=0, description="random seed")
    arms: tuple[str, ...] = Field(("radiomics",), min_length=1, description="models to fit and combine")
    horizons: tuple[Annotated[int, Field(ge=1, le=LAST_HORIZON_YEARS)], ...] = Field(
        HORIZONS_YEARS,
        min_length=1,
        description=f"years after the scan for which the risk is given: whole, rising, 1 to {LAST_HORIZON_YEARS}",
    )
    cohort: CohortSettings = CohortSettings()
    splits: SplitSettings = SplitSettings()
    features: FeatureSettings = FeatureSettings()
    radiomics: RadiomicsSettings = RadiomicsSettings()
    encoder: EncoderSettings = EncoderSettings()
    #: Checked by `training.models.deep.settings`, whose table it is.
    deep: dict[str, object] = Field({}, description="settings of the networks")
    baselines: BaselineSettings = BaselineSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    explanation: ExplanationSettings = ExplanationSettings()
    bundle: BundleSettings = BundleSettings()
    #: Sets nothing: the bar is the node's. Kept for settings of before, and marked where it departs.
    gate: GateBar = GateBar()

    @property
    def arm_tables(self) -> dict[str, dict[str, object]]:
        """The arms' own tables by name, as `training.models.registry.make_arm` takes them."""
        return {
            "radiomics": self.radiomics.model_dump(),
            "encoder": self.encoder.model_dump(),
            "deep": self.deep,
        }

    @field_validator("deep")
    @classmethod
    def _todays_keys(cls, table: dict[str, object]) -> dict[str, object]:
        return former_names.deep_of_today(table)


def defaults() -> dict[str, Any]:
    """Return the defaults of all settings that decide what a run is."""
    paths = {"registry", "outcomes", "covariates", "out", "deep"}
    return RunSettings(registry=Path(), outcomes=Path(), out=Path()).model_dump(mode="json", exclude=paths)


def load(
    path: Path, out: Path | None = None, *, registry: Path | None = None, outcomes: Path | None = None
) -> RunSettings:
    """Read a run's settings. All paths in them are absolute.

    Args:
        path: the TOML file.
        out: the run folder, in place of the file's.
        registry: in place of the file's, which then need not name one.
        outcomes: in place of the file's, which then need not name one.

    Raises:
        UsageError: the file is missing or no TOML, a key is unknown, a value does not fit.
    """
    try:
        stored = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, not UTF-8
        raise UsageError(f"{path} is not TOML: {error}") from None
    given = {"registry": registry, "outcomes": outcomes, "out": out}
    stored |= {name: str(value.absolute()) for name, value in given.items() if value is not None}
    settings = from_dict(stored, str(path))
    # Absolute: the run's record keeps them, and report and gate may be called from another folder.
    folder = path.parent.absolute()
    placed = {k: folder / v for k in ("registry", "outcomes", "covariates") if (v := getattr(settings, k))}
    try:
        deep = _placed_deep(settings.deep, folder)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return settings.model_copy(
        update={
            **placed,
            "out": folder / settings.out,
            "splits": _placed_splits(settings.splits, folder),
            "deep": deep,
            "encoder": _placed_encoder(settings.encoder, folder),
        }
    )


def _placed_deep(table: dict[str, object], folder: Path) -> dict[str, object]:
    """`[deep]`, checked even where no arm wants it: a bundle reads it. Its paths are taken from the folder."""
    if not table:
        return table
    from training.models.deep import (  # noqa: PLC0415  (torch takes seconds: only where there is such a table)
        settings as deep_settings,
    )

    read, placed = deep_settings.read(table), dict(table)
    if read.cache is not None:
        placed["cache"] = str(folder / read.cache)
    if read.pretrained:
        files = read.pretrained.items()
        placed["pretrained"] = {name: {"path": str(folder / f.path), "sha256": f.sha256} for name, f in files}
    return placed


def _placed_splits(table: SplitSettings, folder: Path) -> SplitSettings:
    """Return `[splits]` with its path taken from the folder."""
    return table if table.groups is None else table.model_copy(update={"groups": folder / table.groups})


def _placed_encoder(table: EncoderSettings, folder: Path) -> EncoderSettings:
    """Return `[encoder]` with its paths taken from the folder."""
    given = {name: folder / path for name in ("path", "cache") if (path := getattr(table, name)) is not None}
    return table.model_copy(update=given)


def from_dict(stored: Mapping[str, object], where: str) -> RunSettings:
    """Read settings from plain values; `where` names their place in messages.

    Raises:
        UsageError: a key is unknown or missing, or a value does not fit.
    """
    try:
        settings = RunSettings.model_validate(stored)
    except ValidationError as error:
        raise UsageError("\n".join(f"{where}: {_message(dict(e))}" for e in error.errors())) from None
    horizons = settings.horizons
    if list(horizons) != sorted(set(horizons)):
        raise UsageError(f"{where}: horizons: {list(horizons)}: give each year once, rising")
    try:
        thresholds.by_horizon(settings.evaluation.threshold, horizons)
        covariate_types.declared(settings.covariate_types, "covariate_types")
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    if len(set(settings.arms)) < len(settings.arms):
        raise UsageError(f"{where}: arms contains a duplicate: {', '.join(settings.arms)}")
    return settings


def _message(error: dict[str, Any]) -> str:
    """Which key, what is wrong, the value, and the cure, which is the key's description."""
    location: tuple[str | int, ...] = error["loc"]
    key = ".".join(map(str, location))
    table: type[BaseModel] = RunSettings
    for part in location[:-1]:
        inner = table.model_fields[str(part)].annotation if part in table.model_fields else None
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            break
        table = inner
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), table.model_fields, 1)
        hint = f"perhaps you meant {near[0]!r}" if near else f"known here: {', '.join(table.model_fields)}"
        return f"{key}: unknown key: {hint}"
    named = [str(part) for part in location if part in table.model_fields]
    cure = f": {table.model_fields[named[-1]].description}" if named else ""
    if error["type"] == "missing":
        return f"{key}: is missing{cure}"
    return f"{key}: {error['input']!r}: {error['msg']}{cure}"
