"""The rules a series must meet to be analysed: one Reason for each rule that it fails. The codes are stable.

The rules of content ask whether this is a chest CT worth measuring. The rules of loading ask whether its pixels can
become one regular axial volume in Hounsfield units: `volume.load` refuses what fails them, whoever calls it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from dicomnode.analysis import geometry
from dicomnode.analysis.findings import Reason
from dicomnode.analysis.geometry import Plane, Stack
from dicomnode.analysis.headers import Header, Series, number, string, strings

MIN_SLICES = 20
MIN_COVERAGE_MM = 150.0
MAX_DEGREES_FROM_AXIAL = 20.0
#: Over a chest of 300 mm half a degree moves the last image by 2.6 mm, about three pixels.
MAX_TILT_DEGREES = 0.5
MAX_OFF_LINE_MM = 1.0
GAP = 1.5
#: Two images nearer than this lie at the same position (positions carry rounding of about 1e-3 mm).
SAME_POSITION_MM = 0.01
#: Steps may differ by a tenth of the median; positions rounded to 0.1 mm make steps differ by as much as 0.1 mm.
STEP_TOLERANCE, STEP_ROUNDING_MM = 0.1, 0.15

CHEST = re.compile(r"\b(chest|thora|torax|lung|pulm|poumon|hrct|brust|pecho|ild|wholebody)")
ELSEWHERE = re.compile(
    r"\b(head|brain|skull|crani|cerebr|neck|sinus|orbit|dental|larynx|kopf|schadel|hals"
    r"|abd|pelvi|becken|liver|kidney|renal|colon|urogra|prostate"
    r"|spine|cspine|tspine|lspine|lumb|extrem|shoulder|elbow|wrist|femur|knee|ankle|foot)"
)


@dataclass(frozen=True)
class Facts:
    """What the rules look at. `stack` is None unless every image has a plane."""

    series: Series
    planes: tuple[Plane | None, ...]
    stack: Stack | None

    @property
    def datasets(self) -> list[Dataset]:
        """The headers' data sets."""
        return [h.dataset for h in self.series.headers]


Rule = Callable[[Facts], Reason | None]


def facts(series: Series) -> Facts:
    """The geometry of a series, computed once for all rules."""
    planes = tuple(geometry.plane(h.dataset) for h in series.headers)
    known = [p for p in planes if p is not None]
    return Facts(series, planes, geometry.stack(known) if known and len(known) == len(planes) else None)


def reasons(known: Facts) -> tuple[Reason, ...]:
    """Every reason not to analyse the series. What is no CT image at all gets that one reason only."""
    fundamental = _first_failed(FUNDAMENTAL, known)
    return fundamental or tuple(r for rule in CONTENT + LOADING if (r := rule(known)) is not None)


def reasons_against_loading(known: Facts) -> tuple[Reason, ...]:
    """The reasons why the pixels of the series cannot become one regular volume in Hounsfield units."""
    return _first_failed(FUNDAMENTAL, known) or tuple(r for rule in LOADING if (r := rule(known)) is not None)


def _first_failed(rules: Sequence[Rule], known: Facts) -> tuple[Reason, ...]:
    return next(((r,) for rule in rules if (r := rule(known)) is not None), ())


def _not_ct(known: Facts) -> Reason | None:
    modality = known.series.modality
    return Reason("not-ct", f"Modality is {modality}, not CT.") if modality not in ("", "CT") else None


def _enhanced_ct(known: Facts) -> Reason | None:
    enhanced = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
    sop_classes = {string(d, "SOPClassUID") for d in known.datasets}
    if sop_classes.intersection(enhanced) or any(string(d, "NumberOfFrames") not in ("", "1") for d in known.datasets):
        return Reason("enhanced-ct", "Multi-frame CT is not supported in this version: send single-frame CT images.")
    return None


def _not_ct_image(known: Facts) -> Reason | None:
    other = next((u for d in known.datasets if (u := string(d, "SOPClassUID")) != CTImageStorage), None)
    return Reason("not-ct-image", f"SOP Class UID {other} is not CT Image Storage.") if other else None


def _no_modality(known: Facts) -> Reason | None:
    return None if known.series.modality else Reason("no-modality", "Modality is missing: it must be CT.")


def _localizer(known: Facts) -> Reason | None:
    if any("LOCALIZER" in strings(d, "ImageType") for d in known.datasets):
        return Reason("localizer", "Image Type says LOCALIZER.")
    return None


def _derived(known: Facts) -> Reason | None:
    derived = next((t for d in known.datasets if (t := strings(d, "ImageType"))[:1] == ["DERIVED"]), None)
    return Reason("derived", f"Image Type is {'/'.join(derived)}, not an original image.") if derived else None


def _not_axial(known: Facts) -> Reason | None:
    worst = max((geometry.degrees_from_axial(p) for p in known.planes if p is not None), default=0.0)
    if worst <= MAX_DEGREES_FROM_AXIAL:
        return None
    return Reason("not-axial", f"The images lie {worst:.0f}° from axial (limit {MAX_DEGREES_FROM_AXIAL:.0f}°).")


def _not_chest(known: Facts) -> Reason | None:
    # What names the series itself outweighs the study's; Body Part Examined is often a scanner's default.
    first = known.datasets[0]
    for keyword in ("SeriesDescription", "ProtocolName", "BodyPartExamined", "StudyDescription"):
        words = re.sub(r"[^a-z]+", " ", " ".join(strings(first, keyword)).lower())
        if CHEST.search(words):
            return None
        # Which word of the fixed list, not the text: descriptions are free text and may hold a patient's name.
        if other := ELSEWHERE.search(words):
            return Reason("not-chest", f"{keyword} names another part of the body («{other[1]}…») and no chest.")
    return None


def _too_few_slices(known: Facts) -> Reason | None:
    slices = len(known.series.headers)
    return None if slices >= MIN_SLICES else Reason("too-few-slices", f"{slices} slices, at least {MIN_SLICES} needed.")


def _coverage(known: Facts) -> Reason | None:
    if known.stack is None or known.stack.coverage_mm >= MIN_COVERAGE_MM:
        return None
    covered = f"The slices cover {known.stack.coverage_mm:.0f} mm"
    return Reason("coverage", f"{covered}, less than the {MIN_COVERAGE_MM:.0f} mm that lungs need.")


def _truncated(known: Facts) -> Reason | None:
    short = [h for h in known.series.headers if h.missing_bytes > 0]
    return _named(short, "truncated", "lack pixel data: cut short in transfer or on disk") if short else None


def _duplicate_instances(known: Facts) -> Reason | None:
    seen: set[str] = set()
    for d in known.datasets:
        uid = string(d, "SOPInstanceUID")
        if uid in seen:
            return Reason("duplicate-instances", f"SOP Instance UID {uid} stands in more than one file.")
        seen.add(uid)
    return None


def _missing_attributes(known: Facts) -> Reason | None:
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
    missing = [k for k in needed if any(number(d, k) is None for d in known.datasets)]
    missing += ["PhotometricInterpretation"] * any(not string(d, "PhotometricInterpretation") for d in known.datasets)
    return Reason("missing-attributes", f"Missing in some or all images: {', '.join(missing)}.") if missing else None


def _not_monochrome2(known: Facts) -> Reason | None:
    # CT Image Storage allows MONOCHROME1, but HU with inverted display is nearly always a converter's mistake.
    for d in known.datasets:
        found, samples = string(d, "PhotometricInterpretation"), number(d, "SamplesPerPixel")
        if (found and found != "MONOCHROME2") or (samples is not None and samples != 1):
            return Reason("not-monochrome2", f"Photometric Interpretation is {found}, {samples} samples per pixel.")
    return None


def _no_rescale(known: Facts) -> Reason | None:
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        values = [geometry.numbers(d, keyword, 1) for d in known.datasets]
        if any(v is None or (keyword == "RescaleSlope" and v[0] == 0) for v in values):
            return Reason("no-rescale", f"{keyword} is missing or no usable number: without it there are no HU.")
    return None


def _not_hu(known: Facts) -> Reason | None:
    # PS3.3 C.11.1.1.2: US means unspecified, which older CT writes for HU.
    other = next((t for d in known.datasets if (t := string(d, "RescaleType")) not in ("", "HU", "US")), None)
    return Reason("not-hu", f"Rescale Type is {other}: the values are no Hounsfield units.") if other else None


def _no_geometry(known: Facts) -> Reason | None:
    without = [h for h, p in zip(known.series.headers, known.planes, strict=True) if p is None]
    if not without:
        return None
    return _named(without, "no-geometry", "lack a usable Image Position (Patient) or Image Orientation (Patient)")


def _no_pixel_spacing(known: Facts) -> Reason | None:
    found = ((h, geometry.numbers(h.dataset, "PixelSpacing", 2)) for h in known.series.headers)
    without = [h for h, spacing in found if spacing is None or (spacing <= 0).any()]
    return _named(without, "no-pixel-spacing", "lack a usable Pixel Spacing") if without else None


def _gantry_tilt(known: Facts) -> Reason | None:
    if known.stack is None or known.stack.tilt_degrees <= MAX_TILT_DEGREES:
        return None
    tilt = f"The slices are stacked {known.stack.tilt_degrees:.1f}° off their normal (gantry tilt)"
    return Reason("gantry-tilt", f"{tilt}: tilted series are not supported in this version.")


def _duplicate_positions(known: Facts) -> Reason | None:
    same = sum(s < SAME_POSITION_MM for s in known.stack.steps_mm) if known.stack else 0
    if same == 0:
        return None
    return Reason("duplicate-positions", f"{same} slices lie where another does: several phases in one series?")


def _steps(known: Facts) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    steps = np.array(known.stack.steps_mm if known.stack else ())
    return steps[steps >= SAME_POSITION_MM]


def _missing_slices(known: Facts) -> Reason | None:
    steps = _steps(known)
    gaps = steps[steps > GAP * np.median(steps)] if steps.size else steps
    if gaps.size == 0:
        return None
    usual = f"the usual step is {np.median(steps):.2f} mm"
    return Reason("missing-slices", f"{gaps.size} gaps between slices, the largest {gaps.max():.2f} mm; {usual}.")


def _non_uniform(known: Facts) -> Reason | None:
    if known.stack is not None and known.stack.off_line_mm > MAX_OFF_LINE_MM:
        off = f"up to {known.stack.off_line_mm:.1f} mm off"
        return Reason("non-uniform", f"The image positions do not lie on one straight line ({off}).")
    steps = _steps(known)
    if steps.size == 0:
        return None
    median = float(np.median(steps))
    near = steps[steps <= GAP * median]
    if (abs(near - median) <= max(STEP_TOLERANCE * median, STEP_ROUNDING_MM)).all():
        return None
    return Reason("non-uniform", f"The steps between slices vary from {near.min():.2f} to {near.max():.2f} mm.")


def _mixed_orientation(known: Facts) -> Reason | None:
    found = [np.concatenate([p.along_row, p.along_column]) for p in known.planes if p is not None]
    if all(np.allclose(o, found[0], atol=1e-3) for o in found):
        return None
    return Reason("mixed-orientation", "The images have different orientations.")


def _mixed_size(known: Facts) -> Reason | None:
    sizes = {(number(d, "Rows"), number(d, "Columns")) for d in known.datasets}
    if len(sizes) > 1:
        return Reason("mixed-size", f"The images have {len(sizes)} different sizes (Rows, Columns).")
    found = [s for d in known.datasets if (s := geometry.numbers(d, "PixelSpacing", 2)) is not None]
    if all(np.allclose(s, found[0], rtol=1e-3, atol=0) for s in found):
        return None
    return Reason("mixed-size", "The images have different values of Pixel Spacing.")


def _mixed_frames_of_reference(known: Facts) -> Reason | None:
    found = {string(d, "FrameOfReferenceUID") for d in known.datasets}
    if len(found) == 1:
        return None
    return Reason("mixed-frames-of-reference", f"The images have {len(found)} different Frame of Reference UIDs.")


def _unsupported_syntax(known: Facts) -> Reason | None:
    for uid in {d.file_meta.TransferSyntaxUID for d in known.datasets}:
        try:
            decodable = get_decoder(uid).is_available
        except NotImplementedError:
            decodable = False
        if not decodable:
            return Reason("unsupported-syntax", f"No decoder for transfer syntax {uid.name} ({uid}).")
    return None


def _named(headers: Sequence[Header], code: str, what: str) -> Reason:
    first = string(headers[0].dataset, "SOPInstanceUID")
    return Reason(code, f"{len(headers)} images {what} (the first has SOP Instance UID {first}).")


FUNDAMENTAL: tuple[Rule, ...] = (_not_ct, _enhanced_ct, _not_ct_image)
CONTENT: tuple[Rule, ...] = (
    _no_modality,
    _localizer,
    _derived,
    _not_chest,
    _too_few_slices,
    _coverage,
)
LOADING: tuple[Rule, ...] = (
    _truncated,
    _duplicate_instances,
    _missing_attributes,
    _not_monochrome2,
    _no_rescale,
    _not_hu,
    _unsupported_syntax,
    _no_geometry,
    _no_pixel_spacing,
    _not_axial,
    _mixed_orientation,
    _mixed_size,
    _mixed_frames_of_reference,
    _gantry_tilt,
    _duplicate_positions,
    _missing_slices,
    _non_uniform,
)
