"""From the configuration to the method of analysis: segmenter, radiomics settings and bundle, loaded and checked."""

from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode import weights
from dicomnode.analysis import radiomics
from dicomnode.analysis.lungs import ClassicalSegmenter, Segmenter
from dicomnode.analysis.pipeline import Method
from dicomnode.config import AnalysisTable
from dicomnode.errors import ConfigurationError, UsageError, WeightsError

if TYPE_CHECKING:
    from dicomnode.analysis.bundle import Bundle


def segmenter(table: AnalysisTable) -> Segmenter:
    """The configured segmenter.

    Raises:
        WeightsError: the weights are missing or not the expected file.
    """
    if table.segmenter == "classical":
        return ClassicalSegmenter()
    from dicomnode.analysis.lungmask_segmenter import LungmaskSegmenter  # noqa: PLC0415  (two seconds to import)

    file = _lungmask_file(table)
    return LungmaskSegmenter(
        file.path, file.sha256, _model_name(file.path), device="cuda" if table.device.startswith("cuda") else "cpu"
    )


def _lungmask_file(table: AnalysisTable) -> weights.Installed:
    if table.lungmask_weights is None:
        raise ConfigurationError("analysis.segmenter = 'lungmask' needs lungmask_weights")
    if table.lungmask_sha256 is not None:
        return weights.Installed(table.lungmask_weights, table.lungmask_sha256)
    name = table.lungmask_weights.name
    try:
        return weights.installed(table.weights)[weights.find(name).file]
    except (UsageError, KeyError):
        raise WeightsError(
            f"the lungmask weights {name} are not installed in {table.weights}: run `dicomnode weights fetch R231`, or "
            "give lungmask_sha256, the digest of the file at that path"
        ) from None


def _model_name(file: Path) -> str:
    try:
        return weights.find(file.name).name
    except UsageError:
        return "R231"


def model_bundle(table: AnalysisTable, name: str | None = None) -> "Bundle | None":
    """The configured bundle, or the one called `name`, hashes and golden case checked; None for "".

    Raises:
        BundleError: it is missing, damaged, not allowed, does not reproduce its golden case, or needs radiomics that
            are switched off.
    """
    name = table.bundle if name is None else name
    if not name:
        return None
    from dicomnode.analysis import bundle  # noqa: PLC0415  (torch: two seconds to import)

    found = bundle.load(table.weights / name, allow_demo=table.allow_demo_bundles)
    found.check_radiomics(radiomics.DEFAULT_SETTINGS if table.radiomics else None)
    return found


def method(table: AnalysisTable, segments: Segmenter | None = None) -> Method:
    """All of it, with the segmenter that is at hand or else the configured one."""
    settings = radiomics.DEFAULT_SETTINGS if table.radiomics else None
    return Method(segments or segmenter(table), settings, model_bundle(table), table.selection.rules)
