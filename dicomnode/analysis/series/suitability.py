"""The rules a series must meet to be analysed: one Reason for each rule that it fails. The codes are stable.

The rules of `content` ask whether this is a chest CT worth measuring. The rules of `loading` ask whether its pixels can
become one regular axial volume in Hounsfield units: `volume.load` refuses what fails them, whoever calls it.
"""

from collections.abc import Callable, Sequence

from dicomnode.analysis.findings import Reason
from dicomnode.analysis.series import content_rules, loading_rules
from dicomnode.analysis.series.series_facts import KnownSeries, facts

__all__ = ["KnownSeries", "facts", "reasons", "reasons_against_loading"]

Rule = Callable[[KnownSeries], Reason | None]

FUNDAMENTAL: tuple[Rule, ...] = (content_rules.not_ct, content_rules.enhanced_ct, content_rules.not_ct_image)
CONTENT: tuple[Rule, ...] = (
    content_rules.identity,
    content_rules.not_chest,
    content_rules.description,
    content_rules.kernel,
    content_rules.contrast,
    content_rules.lossy,
    content_rules.not_hounsfield,
    content_rules.too_few_slices,
    content_rules.coverage,
    content_rules.too_thick,
)
LOADING: tuple[Rule, ...] = (
    loading_rules.truncated,
    loading_rules.incomplete_concatenation,
    loading_rules.duplicate_instances,
    loading_rules.missing_attributes,
    loading_rules.not_monochrome2,
    loading_rules.no_rescale,
    loading_rules.not_hu,
    loading_rules.unsupported_syntax,
    loading_rules.no_geometry,
    loading_rules.no_pixel_spacing,
    loading_rules.not_axial,
    loading_rules.mixed_orientation,
    loading_rules.mixed_size,
    loading_rules.mixed_frames_of_reference,
    loading_rules.gantry_tilt,
    loading_rules.duplicate_positions,
    loading_rules.missing_slices,
    loading_rules.non_uniform,
)


def reasons(known: KnownSeries) -> tuple[Reason, ...]:
    """Every reason not to analyse the series. What is no CT image at all gets that one reason only."""
    fundamental = _first_failed(known)
    if fundamental:
        return fundamental
    no_modality = content_rules.no_modality(known)
    found = (
        ((no_modality,) if no_modality else ()) + content_rules.image_types(known) + _failed(CONTENT + LOADING, known)
    )
    return found + _tilt_beside(found, known)


def _tilt_beside(found: tuple[Reason, ...], known: KnownSeries) -> tuple[Reason, ...]:
    """Mention a tilt beside other reasons; alone, it is resampled and refuses nothing."""
    codes = {r.code for r in found}
    if not found or known.stack is None or not known.stack.tilted or codes & {"gantry-tilt", "not-axial"}:
        return ()
    text = f"Gantry tilt {known.stack.tilt_degrees:.1f}°: it would be resampled in an otherwise suitable series."
    return (Reason("gantry-tilt", text),)


def reasons_against_loading(known: KnownSeries) -> tuple[Reason, ...]:
    """Return the reasons why the pixels of the series cannot become one regular volume in Hounsfield units."""
    return _first_failed(known) or _failed(LOADING, known)


def _first_failed(known: KnownSeries) -> tuple[Reason, ...]:
    return next(((r,) for rule in FUNDAMENTAL if (r := rule(known)) is not None), ())


def _failed(rules: Sequence[Rule], known: KnownSeries) -> tuple[Reason, ...]:
    return tuple(r for rule in rules if (r := rule(known)) is not None)
