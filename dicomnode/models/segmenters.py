"""The one table of segmenters: how each is made from the tables of the configuration that choose it.

A new one takes four steps: a class that fits `analysis.lungs.segmenter.Segmenter`; its name in
`config.analysis.SegmenterName`; the keys that it alone reads in `config.analysis.SEGMENTER_KEYS`; its factory here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from dicomnode import downloads
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.lungs.segmenter import Segmenter
from dicomnode.config import AnalysisTable
from dicomnode.config.analysis import SEGMENTER_KEYS, SegmenterName
from dicomnode.errors import ConfigurationError, UsageError, WeightsError
from dicomnode.models import lungmask_weights

#: Keys that may decide on a segmenter whichever it is.
_SHARED_KEYS = ("segmenter", "weights", "device")


class SegmenterFactory(Protocol):
    """Makes a segmenter from its configuration."""

    def __call__(self, table: AnalysisTable, /) -> Segmenter:
        """Make the segmenter.

        Raises:
            WeightsError: its weights are missing or not the expected file.
            ConfigurationError: a key that it needs is missing, or there is no such device.
        """
        ...


def make(table: AnalysisTable) -> Segmenter:
    """Make the configured segmenter. Raises as `SegmenterFactory`."""
    return SEGMENTERS[table.segmenter](table)


def is_same(one: AnalysisTable, other: AnalysisTable) -> bool:
    """Whether two tables have one segmenter: what it is made from agrees."""
    keys = (*_SHARED_KEYS, *SEGMENTER_KEYS.get(one.segmenter, ()))
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _classical(_table: AnalysisTable, /) -> Segmenter:
    return ClassicalSegmenter()


def _lungmask(table: AnalysisTable, /) -> Segmenter:
    from dicomnode.analysis.lungs.lungmask import LungmaskSegmenter, WeightsFile  # noqa: PLC0415  (two seconds)

    if table.lungmask_weights is None:
        raise ConfigurationError("analysis.segmenter = 'lungmask' needs lungmask_weights")
    lungs = _lungmask_file(table.lungmask_weights, table.lungmask_sha256, table.weights, "R231")
    lobes = None
    if table.lungmask_lobe_weights is not None:
        file = _lungmask_file(table.lungmask_lobe_weights, table.lungmask_lobe_sha256, table.weights, "LTRCLobes")
        lobes = WeightsFile(file.path, file.sha256)
    return LungmaskSegmenter(
        lungs.path,
        lungs.sha256,
        _model_name(lungs.path),
        device=table.device,
        lobe_weights=lobes,
    )


SEGMENTERS: Final[Mapping[SegmenterName, SegmenterFactory]] = {"classical": _classical, "lungmask": _lungmask}


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


def _model_name(file: Path) -> str:
    try:
        return lungmask_weights.find(file.name).name
    except UsageError:
        return "R231"
