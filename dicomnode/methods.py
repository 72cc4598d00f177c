"""From the configuration to the method of analysis: segmenter, radiomics settings and bundle, loaded and checked."""

from dicomnode.analysis import bundle, radiomics
from dicomnode.analysis.lungs import ClassicalSegmenter, Segmenter
from dicomnode.analysis.pipeline import Method
from dicomnode.config import AnalysisTable
from dicomnode.errors import ConfigurationError


def segmenter(table: AnalysisTable) -> Segmenter:
    """The configured segmenter.

    Raises:
        WeightsError: the weights are missing or not the expected file.
    """
    if table.segmenter == "classical":
        return ClassicalSegmenter()
    if table.lungmask_weights is None or table.lungmask_sha256 is None:
        raise ConfigurationError("analysis.segmenter = 'lungmask' needs lungmask_weights and lungmask_sha256")
    from dicomnode.analysis.lungmask_segmenter import LungmaskSegmenter  # noqa: PLC0415  (two seconds to import)

    return LungmaskSegmenter(
        table.lungmask_weights, table.lungmask_sha256, device="cuda" if table.device.startswith("cuda") else "cpu"
    )


def model_bundle(table: AnalysisTable) -> bundle.Bundle | None:
    """The configured bundle, hashes and golden case checked; None where none is configured.

    Raises:
        BundleError: it is missing, damaged, not allowed, or does not reproduce its golden case.
    """
    return bundle.load(table.weights / table.bundle, allow_demo=table.allow_demo_bundles) if table.bundle else None


def method(table: AnalysisTable) -> Method:
    """All of it."""
    settings = radiomics.DEFAULT_SETTINGS if table.radiomics else None
    return Method(segmenter(table), settings, model_bundle(table), table.selection.rules)
