"""Settings checked against what a registry will hold, before there is one: for a run that is scheduled on a node."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dicomnode.errors import UsageError
from training.models.arm import VOLUME_ARMS
from training.models.registry import check_files, make_arm
from training.run.settings import RunSettings


class Expected(BaseModel):
    """What an export will hold.

    Attributes:
        scans, patients: how many.
        outcomes: patients whose outcome is known.
        volumes: whether voxels are kept.
        radiomics: with which preparation they are measured, "" for not at all.
        radiomics_spacing_mm: at which resolution.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scans: int
    patients: int
    outcomes: int
    volumes: bool
    radiomics: Literal["", "pyradiomics", "ibsi"]
    radiomics_spacing_mm: float = 1.0


def check(settings: RunSettings, expected: str) -> str:
    """Return that the settings fit, in words.

    Args:
        settings: of the run.
        expected: JSON of an `Expected`.

    Raises:
        UsageError: they do not; the message names every reason.
    """
    try:
        holds = Expected.model_validate_json(expected)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--check: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    tables = settings.arm_tables
    for name in settings.arms:
        make_arm(name, tables)
        check_files(name, tables)
    if settings.covariates is not None and not settings.covariates.is_file():
        raise UsageError(f"covariates: {settings.covariates} does not exist")
    if found := _problems(settings, holds):
        raise UsageError("; ".join(found))
    return f"settings fit: {', '.join(settings.arms)}; {holds.outcomes} of {holds.patients} patients have an outcome"


def _problems(settings: RunSettings, holds: Expected) -> list[str]:
    found = []
    features = settings.features
    networks = [arm for arm in settings.arms if arm in VOLUME_ARMS]
    if not holds.volumes:
        who = f"{', '.join(networks)} and the gate need" if networks else "the gate needs"
        found.append(f"{who} the scans' volumes, and an export will hold none: set registry.volumes = true")
    if features.source == "volumes":
        found.append('features.source = "volumes": an export\'s volumes are cut to the lungs: set it to "registry"')
    if features.radiomics and not holds.radiomics:
        found.append(
            "features.radiomics = true, and an export will hold none: set analysis.radiomics = true on the node, or "
            "features.radiomics = false"
        )
    if features.radiomics and holds.radiomics and holds.radiomics != features.radiomics_preparation:
        found.append(
            f'features.radiomics_preparation = "{features.radiomics_preparation}", and the node measures '
            f'"{holds.radiomics}": set both alike'
        )
    if features.radiomics and holds.radiomics and holds.radiomics_spacing_mm != features.radiomics_spacing_mm:
        found.append(
            f"features.radiomics_spacing_mm = {features.radiomics_spacing_mm:g}, and the node measures at "
            f"{holds.radiomics_spacing_mm:g} mm: set it to that"
        )
    splits = settings.splits
    # The scans themselves tell their scanner's site, and nothing tells their year.
    told_by_scans = splits.kind == "sites" and splits.by != "site"
    if splits.kind != "patients" and not splits.groups and not told_by_scans:
        found.append(
            f'splits.kind = "{splits.kind}": an export tells neither hospitals nor calendar time: name a file '
            "in splits.groups, or split by patients"
        )
    if 0 < holds.outcomes < settings.splits.outer:
        found.append(f"splits.outer = {settings.splits.outer}, and only {holds.outcomes} patients have an outcome")
    return found
