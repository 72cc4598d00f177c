"""Rules of content: is this a chest CT worth measuring? One function for each rule, None where it is met."""

import re
from collections.abc import Iterable, Sequence

from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from dicomnode.analysis.findings import Reason
from dicomnode.analysis.series import derived_originals, geometry, kernels, series_words
from dicomnode.analysis.series.headers import plain, string, strings, text
from dicomnode.analysis.series.multiframe import ENHANCED_CT
from dicomnode.analysis.series.series_facts import KnownSeries
from dicomnode.analysis.series.values import IDENTITY
from dicomnode.words.numerals import apart, plural

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
#: Where a site changes what the reasons speak of.
_KEY = "[analysis.selection]"
#: JPEG 2000 in its own syntaxes may be lossless: there the attribute tells.
_LOSSY = frozenset((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless))
#: What technologists write into Contrast/Bolus Agent when they gave none.
NO_AGENT = re.compile(r"^(no|none|non|without|ohne|sans|nein|kein|senza|sin|nil|n/?a)\b|^[-.0 ]*$")


def has_contrast(images: Iterable[Dataset]) -> bool:
    """Whether an image names a contrast agent."""
    agents = (agent for d in images if (agent := text(d, "ContrastBolusAgent").lower()))
    return any(not NO_AGENT.search(agent) for agent in agents)


def is_lossy(dataset: Dataset) -> bool:
    """Whether the image has been compressed with loss, now or before (PS3.3 C.7.6.1.1.5)."""
    return string(dataset, "LossyImageCompression") == "01" or dataset.file_meta.TransferSyntaxUID in _LOSSY


def not_ct(known: KnownSeries) -> Reason | None:
    """Modality."""
    modality, taken = known.series.modality, known.rules.modalities
    if modality == "" or modality in taken:
        return None
    return Reason("not-ct", f"Modality is {modality}, not {' or '.join(taken)}.")


def enhanced_ct(known: KnownSeries) -> Reason | None:
    """Multi-frame images whose frames could not be told apart."""
    whole = [h.dataset for h in known.series.headers if h.frame_number is None]
    if any(string(d, "SOPClassUID") in ENHANCED_CT or string(d, "NumberOfFrames") not in ("", "1") for d in whole):
        return Reason("enhanced-ct", "Multi-frame CT with missing or damaged functional groups: send it again.")
    return None


def not_ct_image(known: KnownSeries) -> Reason | None:
    """SOP class."""
    found = (string(d, "SOPClassUID") for d in known.datasets)
    other = next((uid for uid in found if uid != CT_IMAGE and uid not in ENHANCED_CT), None)
    return Reason("not-ct-image", f"SOP Class UID {other} is not CT Image Storage.") if other else None


def no_modality(known: KnownSeries) -> Reason | None:
    """Modality must be there."""
    if known.series.modality:
        return None
    return Reason("no-modality", f"Modality is missing: it must be {' or '.join(known.rules.modalities)}.")


def image_types(known: KnownSeries) -> tuple[Reason, ...]:
    """Values of Image Type that exclude the series, or that are required and missing."""
    found = [strings(d, "ImageType") for d in known.datasets]
    reasons = []
    for refused in known.rules.image_type_refused:
        hit = next((t for t in found if refused in t), None)
        if refused == "DERIVED":
            # Of a lossy image, the standard asks for DERIVED (PS3.3 C.7.6.1.1.5): that alone makes no reformat.
            hit = next((t for t, d in zip(found, known.datasets, strict=True) if _is_derived(t, d)), None)
        if hit is None:
            continue
        if refused == "LOCALIZER":
            reasons.append(Reason("localizer", "Image Type is LOCALIZER."))
        elif refused == "DERIVED":
            reasons.append(
                Reason("derived", f"Image Type is {'/'.join(hit)}, not an original image ({_KEY} image_type_refused).")
            )
        else:
            reasons.append(
                Reason(
                    "image-type", f"Image Type is {'/'.join(hit)}: {refused} is excluded ({_KEY} image_type_refused)."
                )
            )
    missing = [r for r in known.rules.image_type_required if any(r not in t for t in found)]
    if missing:
        reasons.append(Reason("image-type", f"Image Type lacks {', '.join(missing)} in some or all images."))
    return tuple(reasons)


def _is_derived(image_type: Sequence[str], dataset: Dataset) -> bool:
    if "DERIVED" not in image_type or derived_originals.is_original(dataset):
        return False
    return not (is_lossy(dataset) and list(image_type[:2]) == ["DERIVED", "PRIMARY"])


def lossy(known: KnownSeries) -> Reason | None:
    """Refuse lossy compression, where a site wants that."""
    if known.rules.lossy == "allowed" or not any(is_lossy(d) for d in known.datasets):
        return None
    return Reason("lossy-refused", f"Lossy compression; such series are excluded ({_KEY} lossy).")


def not_hounsfield(known: KnownSeries) -> Reason | None:
    """Refuse maps of a material: their values are no attenuation."""
    if series_words.spectral(known.datasets[0]) != "material":
        return None
    return Reason(
        "spectral-map", "A material or atomic-number map of a multi-energy scan: its values are not Hounsfield units."
    )


def identity(known: KnownSeries) -> Reason | None:
    """Refuse what no valid object could name the patient and the order of, unless a site wants it repeated as it is."""
    verbatim = known.rules.invalid_identity == "verbatim"
    unfit = {
        doubt.keyword
        for h in known.series.headers
        for doubt in h.doubts
        if doubt.kind == "unusable"
        and doubt.keyword in IDENTITY
        # What is no text at all is not there to be repeated.
        and not (verbatim and doubt.keyword in h.source)
    }
    if not unfit:
        return None
    return Reason(
        "identity-invalid",
        f"{', '.join(sorted(unfit))}: no valid report can repeat this value (too long, several values, control "
        "characters, or not of its character set). Correct it, or have it repeated as it came "
        f"({_KEY} invalid_identity).",
    )


def not_chest(known: KnownSeries) -> Reason | None:
    """Refuse another body part, as far as the descriptions name it."""
    # What names the series itself outweighs the study's; Body Part Examined is often a scanner's default.
    first = known.datasets[0]
    for keyword in ("SeriesDescription", "ProtocolName", "BodyPartExamined", "StudyDescription"):
        words = plain(text(first, keyword))
        if _matches(known.rules.body_parts, words):
            return None
        # Which word of the list, not the text: descriptions are free text and may hold a patient's name.
        if other := _matches(known.rules.other_body_parts, words):
            return Reason("not-chest", f"{keyword} names another body part («{other}…») and not the chest.")
    if known.rules.body_part_may_be_missing:
        return None
    return Reason("not-chest", "No description names the chest, which the selection rules require.")


def description(known: KnownSeries) -> Reason | None:
    """Refuse by the site's own patterns for Series Description."""
    words = text(known.datasets[0], "SeriesDescription").lower()
    include, exclude = known.rules.description_include, known.rules.description_exclude
    if pattern := next((p for p in exclude if re.search(p, words)), None):
        return Reason("description-excluded", f"Series Description matches the excluded pattern {pattern!r}.")
    if include and not _matches(include, words):
        return Reason("description-not-included", "Series Description matches none of the required patterns.")
    return None


def kernel(known: KnownSeries) -> Reason | None:
    """Refuse by the kernel's family."""
    family = kernels.family_of(known.datasets[0])
    if family in known.rules.kernels:
        return None
    name = kernels.name(known.datasets[0]) or "not given"
    return Reason("kernel-refused", f"Kernel {name} belongs to the family {family}, which is excluded.")


def contrast(known: KnownSeries) -> Reason | None:
    """Contrast medium."""
    if known.rules.contrast != "refused" or not has_contrast(known.datasets):
        return None
    return Reason("contrast-refused", "The series is contrast-enhanced; such series are excluded.")


def too_few_slices(known: KnownSeries) -> Reason | None:
    """Refuse a series of too few images."""
    slices, least = len(known.series.headers), known.rules.min_slices
    return (
        None
        if slices >= least
        else Reason("too-few-slices", f"The series has {plural(slices, 'slice')}; at least {least} are needed.")
    )


def coverage(known: KnownSeries) -> Reason | None:
    """Extent from feet to head."""
    least = known.rules.min_coverage_mm
    if known.stack is None or known.stack.coverage_mm >= least:
        return None
    return Reason(
        "coverage",
        f"The slices cover {apart(known.stack.coverage_mm, least)} mm, less than the required {least:.0f} mm.",
    )


def too_thick(known: KnownSeries) -> Reason | None:
    """Distance between slices, and their thickness."""
    most = known.rules.max_step_mm
    if most is not None and known.stack is not None and known.stack.step_mm > most + 0.005:
        return Reason("too-thick", f"Slice spacing is {known.stack.step_mm:.2f} mm (limit {most:g} mm).")
    most, thickness = known.rules.max_thickness_mm, geometry.numbers(known.datasets[0], "SliceThickness", 1)
    if most is not None and thickness is not None and thickness[0] > most:
        return Reason("too-thick", f"Slice Thickness is {apart(thickness[0], most, 2)} mm (limit {most:g} mm).")
    return None


def _matches(patterns: Sequence[str], words: str) -> str:
    """Return the text that one of the patterns found, "" if none did."""
    found = (re.search(p, words) for p in patterns)
    return next((m[0].strip() for m in found if m), "")
