"""Rules of loading: can the pixels become one regular axial volume in Hounsfield units? None where a rule is met."""

from collections.abc import Sequence

import numpy as np
from pydicom.pixels.decoders.base import get_decoder

from dicomnode.analysis.findings import Reason
from dicomnode.analysis.series import geometry
from dicomnode.analysis.series.geometry import (
    MAX_FILLED_GAP_MM,
    MAX_FILLED_GAPS,
    MAX_OFF_LINE_MM,
    MAX_TILT_DEGREES,
    SAME_POSITION_MM,
    SMALL_DEVIATION,
)
from dicomnode.analysis.series.headers import ImageHeader, number, string
from dicomnode.analysis.series.series_facts import KnownSeries
from dicomnode.words.numerals import apart, plural


def not_axial(known: KnownSeries) -> Reason | None:
    """Orientation."""
    worst = max((geometry.degrees_from_axial(p) for p in known.planes if p is not None), default=0.0)
    limit = known.rules.max_degrees_from_axial
    if worst <= limit:
        return None
    return Reason("not-axial", f"The images are {apart(worst, limit)}° off axial (limit {limit:.0f}°).")


def truncated(known: KnownSeries) -> Reason | None:
    """Bytes of the pixels."""
    short = [h for h in known.series.headers if h.missing_bytes > 0]
    return _named(short, "truncated", "pixel data, truncated in transfer or on disk") if short else None


def incomplete_concatenation(known: KnownSeries) -> Reason | None:
    """All parts of one image that was sent in several files (PS3.3 C.7.6.16.2.2.4)."""
    parts = {number(d, "InConcatenationNumber") for d in known.datasets if string(d, "ConcatenationUID")}
    total = max((number(d, "InConcatenationTotalNumber") or 0 for d in known.datasets), default=0)
    if not parts or len(parts) >= total:
        return None
    text = f"Only {len(parts)} of {plural(total, 'part')} of the concatenation present: send it again."
    return Reason("concatenation-incomplete", text)


def duplicate_instances(known: KnownSeries) -> Reason | None:
    """One UID, one image."""
    seen: set[tuple[str, int | None]] = set()
    for h in known.series.headers:
        key = string(h.dataset, "SOPInstanceUID"), h.frame_number
        if key in seen:
            return Reason("duplicate-instances", f"SOP Instance UID {key[0]} occurs in more than one file.")
        seen.add(key)
    return None


def missing_attributes(known: KnownSeries) -> Reason | None:
    """Refuse images that lack what decoding needs."""
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
    missing = [k for k in needed if any(number(d, k) is None for d in known.datasets)]
    missing += ["PhotometricInterpretation"] * any(not string(d, "PhotometricInterpretation") for d in known.datasets)
    return Reason("missing-attributes", f"Missing in some or all images: {', '.join(missing)}.") if missing else None


def not_monochrome2(known: KnownSeries) -> Reason | None:
    """Photometric interpretation."""
    # CT Image Storage allows MONOCHROME1, but HU with inverted display is nearly always a converter's mistake.
    for d in known.datasets:
        found, samples = string(d, "PhotometricInterpretation"), number(d, "SamplesPerPixel")
        if (found and found != "MONOCHROME2") or (samples is not None and samples != 1):
            per_pixel = "no Samples per Pixel" if samples is None else f"{plural(samples, 'sample')} per pixel"
            what = f"Photometric Interpretation is {found}, {per_pixel}"
            return Reason("not-monochrome2", f"{what}; CT in HU has MONOCHROME2 and 1.")
    return None


def no_rescale(known: KnownSeries) -> Reason | None:
    """Refuse images without a way to Hounsfield units."""
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        values = [geometry.numbers(d, keyword, 1) for d in known.datasets]
        if any(v is None or (keyword == "RescaleSlope" and v[0] == 0) for v in values):
            return Reason("no-rescale", f"{keyword} is missing or unusable: HU cannot be computed.")
    return None


def not_hu(known: KnownSeries) -> Reason | None:
    """Refuse rescaled values in another unit than HU."""
    # PS3.3 C.11.1.1.2: US means unspecified, which older CT writes for HU.
    other = next((t for d in known.datasets if (t := string(d, "RescaleType").upper()) not in ("", "HU", "US")), None)
    return Reason("not-hu", f"Rescale Type is {other}: the values are not Hounsfield units.") if other else None


def no_geometry(known: KnownSeries) -> Reason | None:
    """Position and orientation."""
    without = [h for h, p in zip(known.series.headers, known.planes, strict=True) if p is None]
    if not without:
        return None
    return _named(without, "no-geometry", "a usable Image Position (Patient) or Image Orientation (Patient)")


def no_pixel_spacing(known: KnownSeries) -> Reason | None:
    """Pixel spacing."""
    without = [h for h in known.series.headers if geometry.pixel_spacing(h.dataset) is None]
    return _named(without, "no-pixel-spacing", "a usable Pixel Spacing") if without else None


def gantry_tilt(known: KnownSeries) -> Reason | None:
    """Tilt beyond what a gantry can do; less is resampled."""
    if known.stack is None or known.stack.tilt_degrees <= MAX_TILT_DEGREES:
        return None
    tilt = f"Gantry tilt is {apart(known.stack.tilt_degrees, MAX_TILT_DEGREES, 1)}°"
    return Reason("gantry-tilt", f"{tilt}; at most {MAX_TILT_DEGREES:.0f}° can be resampled.")


def duplicate_positions(known: KnownSeries) -> Reason | None:
    """One image at each position (identical copies have been left out by `parts`)."""
    same = sum(s < SAME_POSITION_MM for s in known.stack.steps_mm) if known.stack else 0
    if same == 0:
        return None
    return Reason("duplicate-positions", f"Slices at the position of another: {same}; several phases in one series?")


def missing_slices(known: KnownSeries) -> Reason | None:
    """Gaps too large to fill."""
    if known.stack is None:
        return None
    gaps, steps = known.stack.gaps_mm, known.stack.distinct_steps_mm
    if not gaps or (max(gaps) <= MAX_FILLED_GAP_MM and len(gaps) <= max(1, MAX_FILLED_GAPS * len(steps))):
        return None
    usual = f"the usual slice spacing is {np.median(steps):.2f} mm"
    return Reason("missing-slices", f"Slices are missing (gaps: {len(gaps)}, largest {max(gaps):.2f} mm); {usual}.")


def non_uniform(known: KnownSeries) -> Reason | None:
    """Refuse steps too uneven to resample."""
    stack = known.stack
    if stack is not None and stack.off_line_mm > MAX_OFF_LINE_MM:
        off = f"up to {stack.off_line_mm:.1f} mm off"
        return Reason("non-uniform", f"The image positions are not on a straight line ({off}).")
    if stack is None or stack.deviation <= SMALL_DEVIATION:
        return None
    near = [s for s in stack.distinct_steps_mm if s not in stack.gaps_mm]
    limit = f"at most {SMALL_DEVIATION:.0%} from the usual spacing can be resampled"
    return Reason("non-uniform", f"Slice spacing varies from {min(near):.2f} to {max(near):.2f} mm; {limit}.")


def mixed_orientation(known: KnownSeries) -> Reason | None:
    """One orientation."""
    found = [np.concatenate([p.along_row, p.along_column]) for p in known.planes if p is not None]
    if all(np.allclose(o, found[0], atol=1e-3) for o in found):
        return None
    return Reason("mixed-orientation", "The images have different orientations.")


def mixed_size(known: KnownSeries) -> Reason | None:
    """One size of image and of pixel."""
    sizes = {(number(d, "Rows"), number(d, "Columns")) for d in known.datasets}
    if len(sizes) > 1:
        return Reason("mixed-size", f"The images have {len(sizes)} different sizes (Rows, Columns).")
    found = [s for d in known.datasets if (s := geometry.pixel_spacing(d)) is not None]
    if all(np.allclose(s, found[0], rtol=1e-3, atol=0) for s in found):
        return None
    return Reason("mixed-size", "The images have different values of Pixel Spacing.")


def mixed_frames_of_reference(known: KnownSeries) -> Reason | None:
    """One frame of reference."""
    found = {string(d, "FrameOfReferenceUID") for d in known.datasets}
    if len(found) == 1:
        return None
    return Reason("mixed-frames-of-reference", f"The images have {len(found)} different Frame of Reference UIDs.")


def unsupported_syntax(known: KnownSeries) -> Reason | None:
    """Refuse what no decoder reads."""
    for uid in {d.file_meta.TransferSyntaxUID for d in known.datasets}:
        try:
            decodable = get_decoder(uid).is_available
        except NotImplementedError:
            decodable = False
        if not decodable:
            return Reason("unsupported-syntax", f"No decoder for transfer syntax {uid.name} ({uid}).")
    return None


def _named(headers: Sequence[ImageHeader], code: str, what: str) -> Reason:
    first = string(headers[0].dataset, "SOPInstanceUID")
    lacking = plural(len(headers), "image lacks", "images lack")
    return Reason(code, f"{lacking} {what} (the first has SOP Instance UID {first}).")
