"""From the configuration to the method of analysis: segmenter, radiomics settings and bundle, loaded and checked."""

from typing import TYPE_CHECKING

from dicomnode.analysis.lungs.segmenter import Segmenter
from dicomnode.analysis.pipeline import Method
from dicomnode.analysis.radiomics import extract
from dicomnode.config import AnalysisTable, Config
from dicomnode.errors import BundleError
from dicomnode.models import segmenters
from dicomnode.routing.rules import DEFAULT_PROFILE

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle
    from dicomnode.analysis.risk.signature import TrustedKey


def model_bundle(table: AnalysisTable, name: str | None = None) -> "Bundle | None":
    """Return the configured bundle, or the one called `name`, hashes and golden case checked; None for "".

    Raises:
        BundleError: it is missing, damaged, not allowed, not signed as demanded, does not reproduce its golden case, or
            needs radiomics that are switched off.
        ConfigurationError: a trusted key cannot be read.
    """
    name = table.bundle if name is None else name
    if not name:
        return None
    if not (table.weights / name).is_dir():
        there = ", ".join(sorted(p.parent.name for p in table.weights.glob("*/model.toml"))) or "none"
        raise BundleError(
            f"no bundle {name!r} in {table.weights} (available: {there}): correct bundle, shadow_bundle or "
            "weights in [analysis] or the profile"
        )
    from dicomnode.analysis.risk import load_bundle  # noqa: PLC0415  (torch: two seconds to import)

    found = load_bundle.load(table.weights / name, allow_demo=table.allow_demo_bundles, trusted=trusted_keys(table))
    settings = extract.with_preparation(extract.DEFAULT_SETTINGS, table.radiomics_preparation)
    found.check_radiomics(settings if table.radiomics else None)
    return found


def trusted_keys(table: AnalysisTable) -> "list[TrustedKey] | None":
    """Return whose signature a bundle must bear; None where none is demanded. Raises ConfigurationError."""
    from dicomnode.analysis.risk import signature  # noqa: PLC0415  (its package imports torch)

    return [signature.read_key(path) for path in table.trusted_keys] if table.require_signed_bundles else None


def method(table: AnalysisTable, segments: Segmenter | None = None, second: Segmenter | None = None) -> Method:
    """All of it, with the segmenters that are at hand or else the configured ones."""
    filtered = extract.with_filters(table.radiomics_filters, table.radiomics_log_sigma_mm)
    settings = extract.with_preparation(filtered, table.radiomics_preparation) if table.radiomics else None
    return Method(
        segments or segmenters.make(table),
        settings,
        model_bundle(table),
        table.selection.rules,
        second=second or segmenters.make_second(table),
        explanation=table.explanation,
    )


def profiles(config: Config, default: Method) -> dict[str, Method]:
    """Return the methods of the profiles that rules name. One that segments as [analysis] does shares its network."""
    made: dict[str, Method] = {}
    for name in dict.fromkeys(r.analyse for r in config.route if r.analyse not in (None, DEFAULT_PROFILE)):
        assert name is not None
        table = config.analysis_of(name)
        shared = segmenters.is_same(table, config.analysis)
        same_second = segmenters.is_second_same(table, config.analysis)
        made[name] = method(table, default.segmenter if shared else None, default.second if same_second else None)
    return made
