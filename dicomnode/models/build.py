"""From the configuration to the method of analysis: segmenter, radiomics settings and bundle, loaded and checked."""

from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode import downloads
from dicomnode.analysis.lungs.segmenter import ClassicalSegmenter, Segmenter
from dicomnode.analysis.pipeline import Method
from dicomnode.analysis.radiomics import extract
from dicomnode.config import AnalysisTable, Config
from dicomnode.errors import BundleError, ConfigurationError, UsageError, WeightsError
from dicomnode.models import lungmask_weights
from dicomnode.routing.rules import DEFAULT_PROFILE

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle

#: Tables that agree in these have one segmenter.
_SEGMENTER_KEYS = ("segmenter", "weights", "lungmask_weights", "lungmask_sha256", "device")


def segmenter(table: AnalysisTable) -> Segmenter:
    """Return the configured segmenter.

    Raises:
        WeightsError: the weights are missing or not the expected file.
    """
    if table.segmenter == "classical":
        return ClassicalSegmenter()
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


def _lungmask_file(path: Path, sha256: str | None, folder: Path, usual: str) -> downloads.Installed:
    """Return the file itself with its given digest, or the published file of that name installed in `folder`."""
    if sha256 is not None:
        return downloads.Installed(path, sha256)
    try:
        return downloads.installed(folder)[lungmask_weights.find(path.name).file]
    except UsageError as e:
        raise WeightsError(
            f"lungmask weights {e}; a file of another name needs its digest (lungmask_sha256, lungmask_lobe_sha256)"
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


def model_bundle(table: AnalysisTable, name: str | None = None) -> "Bundle | None":
    """Return the configured bundle, or the one called `name`, hashes and golden case checked; None for "".

    Raises:
        BundleError: it is missing, damaged, not allowed, does not reproduce its golden case, or needs radiomics that
            are switched off.
    """
    name = table.bundle if name is None else name
    if not name:
        return None
    if not (table.weights / name).is_dir():
        there = ", ".join(sorted(p.parent.name for p in table.weights.glob("*/model.toml"))) or "none"
        raise BundleError(
            f"there is no bundle {name!r} in {table.weights} (there are: {there}): correct bundle, shadow_bundle or "
            "weights in [analysis] or the profile"
        )
    from dicomnode.analysis.risk import bundle  # noqa: PLC0415  (torch: two seconds to import)

    found = bundle.load(table.weights / name, allow_demo=table.allow_demo_bundles)
    found.check_radiomics(extract.DEFAULT_SETTINGS if table.radiomics else None)
    return found


def method(table: AnalysisTable, segments: Segmenter | None = None) -> Method:
    """All of it, with the segmenter that is at hand or else the configured one."""
    settings = extract.with_filters(table.radiomics_filters, table.radiomics_log_sigma_mm) if table.radiomics else None
    return Method(segments or segmenter(table), settings, model_bundle(table), table.selection.rules)


def profiles(config: Config, default: Method) -> dict[str, Method]:
    """Return the methods of the profiles that rules name. One that segments as [analysis] does shares its network."""
    made: dict[str, Method] = {}
    for name in dict.fromkeys(r.analyse for r in config.route if r.analyse not in (None, DEFAULT_PROFILE)):
        assert name is not None
        table = config.analysis_of(name)
        same = all(getattr(table, key) == getattr(config.analysis, key) for key in _SEGMENTER_KEYS)
        made[name] = method(table, default.segmenter if same else None)
    return made
