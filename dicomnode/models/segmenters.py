"""The one table of segmenters: how each is made from the tables of the configuration that choose it.

A new one takes four steps: a class that fits `analysis.lungs.segmenter.Segmenter`; its name in
`config.analysis.SegmenterName`; the keys that it alone reads in `config.analysis.SEGMENTER_KEYS`; its factory here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from dicomnode import downloads
from dicomnode.config import AnalysisTable
from dicomnode.config.analysis import SEGMENTER_KEYS, SegmenterName
from dicomnode.errors import ConfigurationError, UsageError, WeightsError
from dicomnode.models import lungmask_weights

if TYPE_CHECKING:
    from dicomnode.analysis.lungs.segmenter import Segmenter

#: Keys that may decide on a segmenter whichever it is.
_SHARED_KEYS = ("weights", "device")
#: "lungmask-" before it, it still is a DICOM short text with room for the version (LO, 64 characters).
_LONGEST_NAME = 40
#: The published weights for the lobes.
_LOBES = "LTRCLobes"


class SegmenterFactory(Protocol):
    """Makes a segmenter from its configuration."""

    def __call__(self, table: AnalysisTable, /) -> "Segmenter":
        """Make the segmenter.

        Raises:
            WeightsError: its weights are missing or not the expected file.
            ConfigurationError: a key that it needs is missing, or there is no such device.
        """
        ...


def make(table: AnalysisTable) -> "Segmenter":
    """Make the configured segmenter. Raises as `SegmenterFactory`."""
    return SEGMENTERS[table.segmenter](table)


def make_second(table: AnalysisTable) -> "Segmenter | None":
    """Make the segmenter that the first one is compared with; None where none is. Raises as `SegmenterFactory`."""
    return SEGMENTERS[table.second_segmenter](table) if table.second_segmenter else None


def first_choice(table: AnalysisTable) -> str:
    """Say how to come from the segmenter without weights to lungmask's networks; "" where they serve already."""
    if table.segmenter != "classical":
        return ""
    use = "set segmenter = 'lungmask' and lungmask_weights = 'R231'"
    if lungmask_weights.find("R231").file in downloads.installed(table.weights):
        return f"lungmask's network R231 is installed and the first choice: {use}"
    return f"lungmask's network is the first choice: `dicomnode weights fetch R231`, then {use}"


def is_same(one: AnalysisTable, other: AnalysisTable) -> bool:
    """Whether two tables have one segmenter: what it is made from agrees."""
    return one.segmenter == other.segmenter and _agree(one, other, one.segmenter)


def is_second_same(one: AnalysisTable, other: AnalysisTable) -> bool:
    """Whether two tables compare with one segmenter, or both with none."""
    return one.second_segmenter == other.second_segmenter and _agree(one, other, one.second_segmenter)


def _agree(one: AnalysisTable, other: AnalysisTable, name: SegmenterName | Literal[""]) -> bool:
    keys = (*_SHARED_KEYS, *SEGMENTER_KEYS[name]) if name else ()
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _classical(_table: AnalysisTable, /) -> "Segmenter":
    from dicomnode.analysis.lungs.classical import ClassicalSegmenter  # noqa: PLC0415  (half a second)

    return ClassicalSegmenter()


def _lungmask(table: AnalysisTable, /) -> "Segmenter":
    from dicomnode.analysis.lungs.lungmask import LungmaskSegmenter, WeightsFile  # noqa: PLC0415  (two seconds)

    if table.lungmask_weights is None:
        raise ConfigurationError("analysis.segmenter = 'lungmask' needs lungmask_weights")
    lungs = _lungmask_file(table.lungmask_weights, table.lungmask_sha256, table.weights, "R231")
    file = _lobes_file(table)
    lobes = None if file is None else WeightsFile(file.path, file.sha256)
    return LungmaskSegmenter(
        lungs.path,
        lungs.sha256,
        _model_name(lungs),
        device=table.device,
        lobe_weights=lobes,
        step_mm=table.lungmask_step_mm,
    )


SEGMENTERS: Final[Mapping[SegmenterName, SegmenterFactory]] = {"classical": _classical, "lungmask": _lungmask}


def _lobes_file(table: AnalysisTable) -> downloads.Installed | None:
    """Return the weights for the lobes: those that are configured, or the published ones where they are installed."""
    if not table.lungmask_lobes:
        return None
    if table.lungmask_lobe_weights is not None:
        return _lungmask_file(table.lungmask_lobe_weights, table.lungmask_lobe_sha256, table.weights, _LOBES)
    return downloads.installed(table.weights).get(lungmask_weights.find(_LOBES).file)


def _lungmask_file(path: Path, sha256: str | None, folder: Path, usual: str) -> downloads.Installed:
    """Return the file itself with its digest, or the published file of that name that was installed in `folder`."""
    if sha256 is not None:
        return downloads.Installed(path, sha256)
    try:
        return downloads.installed(folder)[lungmask_weights.find(path.name).file]
    except UsageError as e:
        raise WeightsError(
            f"lungmask weights {e}; a file with another name needs its digest (lungmask_sha256, lungmask_lobe_sha256)"
        ) from None
    except KeyError:
        raise WeightsError(
            f"the lungmask weights {path.name} are not installed in {folder}: run `dicomnode weights fetch {usual}`, "
            "or give the digest of the file at that path (lungmask_sha256, lungmask_lobe_sha256)"
        ) from None


def _model_name(file: downloads.Installed) -> str:
    """Return the name of published weights, of which the file's name holds the digest; of others the file's own."""
    for known in lungmask_weights.KNOWN:
        if file.sha256.lower().startswith(Path(known.file).stem.rpartition("-")[2]):
            return known.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", file.path.stem)[:_LONGEST_NAME].strip("-") or "own"
