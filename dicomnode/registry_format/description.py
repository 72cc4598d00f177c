"""registry.toml: who made the registry, when, in which format, by which method.

A registry made from DICOM files in format 1 is refused. It holds whole bodies, which could be cut; but patients of two
issuers with one Patient ID are one patient in it, and nothing in the folder tells where. Its images are at hand for
whoever made it, so it can be made anew.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import tomli_w

import dicomnode
from dicomnode.errors import UsageError
from dicomnode.files import parse_toml, write_whole

NAME = "registry.toml"
#: 2: no volume holds more than the lungs, and a patient is Patient ID and issuer, whoever has made the registry.
FORMAT = 2
_READABLE = (1, 2)
#: The resolution of a node's radiomics; registry.toml states it where it is another.
RADIOMICS_SPACING_MM = 1.0
MadeBy = Literal["node", "training", "synthetic", "import"]
_MAKERS = {
    "node": "`dicomnode registry export`",
    "training": "`training cohort --dicom`",
    "synthetic": "`training synthetic`",
    "import": "`training import`",
}


def write_description(
    folder: Path,
    made_by: MadeBy,
    algorithm_digests: Iterable[str],
    notes: str,
    more: Mapping[str, object] | None = None,
) -> None:
    """Write registry.toml, after everything else in the folder.

    Args:
        folder: the registry.
        made_by: its writer.
        algorithm_digests: of all scans, in any order, repeated or not.
        notes: for a person.
        more: further keys.
    """
    content: dict[str, object] = {
        "format": FORMAT,
        "made_by": made_by,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software_version": dicomnode.__version__,
        "algorithm_digest": sorted(set(algorithm_digests)),
        "notes": notes,
        **(more or {}),
    }
    write_whole(folder / NAME, tomli_w.dumps(content))


def read_description(folder: Path) -> dict[str, object]:
    """Read registry.toml; `created` is a text, as it was written or from a date in an older registry.

    Raises:
        UsageError: it is missing, damaged, of another format, or of a registry that has to be made anew.
    """
    path = folder / NAME
    if not path.is_file():
        cure = f"give a folder made by {', '.join(_MAKERS.values())}"
        raise UsageError(f"{path} is missing, so this is not a registry: {cure}")
    try:
        about = parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not TOML, not UTF-8
        raise UsageError(f"{path} is not TOML: {error}") from None
    if about.get("format") not in _READABLE:
        known = " and ".join(map(str, _READABLE))
        raise UsageError(f"{path}: format is {about.get('format')!r}, this version reads {known}: export it again")
    spacing = about.get("radiomics_spacing_mm", RADIOMICS_SPACING_MM)
    if isinstance(spacing, bool) or not isinstance(spacing, int | float) or not spacing > 0:
        raise UsageError(f"{path}: radiomics_spacing_mm is {spacing!r}: it must be a number of mm above 0")
    for key in ("disease", "source", "period", "dates"):
        if not isinstance(about.get(key, ""), str):
            raise UsageError(f"{path}: {key} is {about[key]!r}: write a text in quotes")
    sites = about.get("sites", [])
    if not isinstance(sites, list) or not all(isinstance(site, str) for site in sites):
        raise UsageError(f"{path}: sites is {sites!r}: write a list of texts")
    if not isinstance(about.get("covariates", {}), dict) or not isinstance(about.get("radiomics_settings", ""), str):
        raise UsageError(
            f"{path}: covariates must be a table, radiomics_settings a text: make it with `training import`"
        )
    if about.get("made_by") not in _MAKERS:
        known = ", ".join(map(repr, _MAKERS))
        raise UsageError(f"{path}: made_by is {about.get('made_by')!r}: it must be one of {known}")
    if about["made_by"] == "training" and about["format"] == 1:
        raise UsageError(
            f"{path}: an older version made this registry from DICOM files: it holds more of the patients' bodies than "
            "their lungs, and patients of two issuers with one Patient ID are one in it: make it anew from the images "
            "with `training cohort --dicom`, under a new name, and delete this one"
        )
    created = about.get("created")
    return {**about, "created": created.isoformat() if isinstance(created, date) else str(created or "")}


def holds_lungs_alone(about: Mapping[str, object]) -> bool:
    """Tell whether the volumes are cut to the lungs, so that nothing can be measured on them."""
    return about["format"] != 1 or about["made_by"] == "node"
