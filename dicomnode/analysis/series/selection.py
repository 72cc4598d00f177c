"""From files to the one series that is analysed: group, split into scans, judge, rank, and say why.

`select` never guesses silently: each series that is not chosen carries its reasons, and doubts about the chosen one are
flags.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from dicomnode.analysis.findings import Flag, Reason, RejectedSeries, Severity
from dicomnode.analysis.series import (
    breath,
    content_rules,
    derived_originals,
    geometry,
    kernels,
    parts,
    selection_rules,
    series_words,
    suitability,
)
from dicomnode.analysis.series.geometry import positions_mm
from dicomnode.analysis.series.headers import (
    ImageHeader,
    Series,
    Unreadable,
    find_files,
    identifier,
    read_headers,
    string,
    strings,
)
from dicomnode.analysis.series.multiframe import ENHANCED_CT
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.analysis.series.series_facts import KnownSeries, facts
from dicomnode.analysis.series.values import IDENTITY, Doubt
from dicomnode.words.numerals import plural

__all__ = [
    "ImageHeader",
    "Judged",
    "Selection",
    "Series",
    "Unreadable",
    "find_files",
    "group",
    "input_digest",
    "positions_mm",
    "read_headers",
    "select",
    "studies",
]

THICK_STEP_MM = 3.0
WITHOUT_PATIENT_ID = Flag(
    "object-without-patient-id",
    "warning",
    "Some objects of this study have no Patient ID; they were taken as this patient's.",
)
_SPECTRAL = (
    "A virtual image of a multi-energy scan (such as monoenergetic): attenuation differs from a conventional image."
)
#: Attributes that a flag names.
_MOST_NAMED = 12


@dataclass(frozen=True)
class Judged:
    """One series, or one part of it, with what was found against it and what it is ranked by."""

    known: KnownSeries
    reasons: tuple[Reason, ...]

    @property
    def series(self) -> Series:
        """The series or part."""
        return self.known.series

    @property
    def first(self) -> Dataset:
        """The first image's attributes."""
        return self.series.headers[0].dataset

    @property
    def step_mm(self) -> float | None:
        """The mean distance between slices, where positions tell."""
        return None if self.known.stack is None else self.known.stack.step_mm

    @property
    def coverage_mm(self) -> float | None:
        """From the first slice to the last, where positions tell."""
        return None if self.known.stack is None else self.known.stack.coverage_mm

    @property
    def kernel(self) -> str:
        """The kernel's name, "" where none is given."""
        return kernels.name(self.first)

    @property
    def posture(self) -> series_words.Posture:
        """How the patient lies."""
        return series_words.posture(self.first)

    @property
    def spectral(self) -> series_words.Spectral:
        """What kind of map a multi-energy scanner computed; "" for a conventional image."""
        return series_words.spectral(self.first)

    @property
    def made_for(self) -> tuple[Flag, ...]:
        """Purposes beside the diagnostic scan of the lungs."""
        return series_words.made_for(self.first)

    @property
    def breath(self) -> breath.Breath:
        """In or out, as far as the headers say so."""
        return breath.of(self.first)

    @property
    def rank(self) -> tuple[int | float | str, ...]:
        """Smaller is better: conventional, diagnostic, breath, posture, contrast if that is preferred, thin, kernel.

        Then coverage, lossless, primary, step, number of slices, UID and part, so that the order is always the same.
        """
        step, limits = self.step_mm or 0.0, self.known.rules
        return (
            bool(self.spectral),
            bool(self.made_for),
            self.breath == "expiration",
            self.posture in ("prone", "decubitus"),
            limits.contrast == "preferred" and not content_rules.has_contrast(self.known.datasets),
            0 if step <= 1.5 else 1 if step <= THICK_STEP_MM else 2,
            limits.kernels.index(kernels.family_of(self.first)),
            # Reconstructions of one scan differ by a few slices: that must not outweigh the rest.
            -round((self.coverage_mm or 0.0) / 20),
            content_rules.is_lossy(self.first),
            strings(self.first, "ImageType")[1:2] != ["PRIMARY"],
            round(step, 2),
            -len(self.series.headers),
            self.series.series_uid,
            self.series.part,
        )

    @property
    def description(self) -> str:
        """What it is, in words."""
        kernel = f"kernel {self.kernel} ({kernels.family_of(self.first)})" if self.kernel else "kernel not given"
        part = f"{self.series.part}; " if self.series.part else ""
        return f"{part}{self.step_mm or 0:.1f} mm slice spacing, {kernel}, {self.coverage_mm or 0:.0f} mm coverage"


@dataclass(frozen=True)
class Selection:
    """The series to analyse and why, or None; every other one with its reasons; doubts about the input.

    `judged` is all that was looked at, in the order in which it was found; the chosen one has no reasons.
    """

    chosen: Series | None
    why_chosen: str
    rejected: tuple[RejectedSeries, ...]
    flags: tuple[Flag, ...]
    judged: tuple[Judged, ...] = field(default=(), repr=False)


def group(headers: Iterable[ImageHeader]) -> list[Series]:
    """Return the headers by study and Series Instance UID, in the order in which the series first appear."""
    found: dict[tuple[str, str], list[ImageHeader]] = {}
    for h in headers:
        key = string(h.dataset, "StudyInstanceUID"), string(h.dataset, "SeriesInstanceUID")
        found.setdefault(key, []).append(h)
    series = []
    for (study_uid, series_uid), members in found.items():
        modality = next((m for h in members if (m := string(h.dataset, "Modality"))), "")
        series.append(Series(series_uid, study_uid, modality, tuple(members)))
    return series


def studies(series: Iterable[Series]) -> dict[str, list[Series]]:
    """Return the series by Study Instance UID."""
    found: dict[str, list[Series]] = {}
    for s in series:
        found.setdefault(s.study_uid, []).append(s)
    return found


def select(
    series: Sequence[Series], unreadable: Sequence[Unreadable] = (), limits: Rules = selection_rules.DEFAULT
) -> Selection:
    """Return the best suitable series of one study, or the best part of one (`parts`).

    Raises:
        ValueError: the series are of more than one study (see `studies`).
    """
    if len(studies(series)) > 1:
        raise ValueError(f"series of {len(studies(series))} studies: select takes one study at a time")
    flags = _unreadable_flags(unreadable)
    if not series:
        return Selection(None, "No readable DICOM object.", (), flags)
    if _is_of_two_patients(series):
        reason = Reason("two-patients", "Patient ID or its issuer differs within the study: correct the study first.")
        return _selection([Judged(facts(s, limits), (reason,)) for s in series], None, reason.text, flags)

    flags += _unnamed_flags(series)
    known = [facts(part, limits) for s in series for part in _parts(s)]
    judged = [Judged(k, suitability.reasons(k)) for k in known]
    suitable = sorted((j for j in judged if not j.reasons), key=lambda j: j.rank)
    if not suitable:
        codes = sorted({r.code for j in judged for r in j.reasons})
        return _selection(judged, None, f"No series is suitable ({', '.join(codes)}).", flags)

    best, *others = suitable
    better = Reason(
        "another-series-preferred", f"Suitable, but {best.series.series_uid} was preferred: {best.description}."
    )
    judged = [replace(j, reasons=(better,)) if not j.reasons and j is not best else j for j in judged]
    alternatives = (
        "the only suitable series"
        if not others
        else f"preferred to {plural(len(others), 'other suitable series', 'other suitable series')}"
    )
    return _selection(judged, best, f"{best.description}; {alternatives}", flags + _flags(best))


def _selection(judged: Sequence[Judged], best: Judged | None, why: str, flags: tuple[Flag, ...]) -> Selection:
    rejected = tuple(_rejected(j) for j in judged if j is not best)
    return Selection(None if best is None else best.series, why, rejected, flags, tuple(judged))


def _rejected(judged: Judged) -> RejectedSeries:
    s = judged.series
    return RejectedSeries(s.series_uid, s.modality, len(s.headers), judged.reasons, s.part)


def _parts(series: Series) -> tuple[Series, ...]:
    """Return the scans of a CT series; anything else stays whole, and is not looked into."""
    is_ct = all(string(h.dataset, "SOPClassUID") in (content_rules.CT_IMAGE, *ENHANCED_CT) for h in series.headers)
    return parts.split(series) if is_ct else (series,)


def input_digest(series: Series) -> str:
    """SHA-256, hex, over the sorted pairs of SOP Instance UID and SHA-256 of the file's data set.

    The File Meta Information is left out: it names who wrote the file, so a second copy from another peer would differ.

    Raises:
        OSError: a file cannot be read.
    """
    pairs = []
    # One for each file: the frames of a multi-frame image share theirs.
    for h in {h.path: h for h in series.headers}.values():
        with h.path.open("rb") as file:
            seek_data_set(file)
            pairs.append(f"{string(h.dataset, 'SOPInstanceUID')} {hashlib.file_digest(file, 'sha256').hexdigest()}\n")
    return hashlib.sha256("".join(sorted(pairs)).encode("ascii")).hexdigest()


def seek_data_set(file: BinaryIO) -> None:
    """Go to the first byte after the File Meta Information (group 0002, always explicit little endian; PS3.10 7.1)."""
    if file.read(132)[128:] != b"DICM":
        file.seek(0)
    while True:
        start = file.tell()
        head = file.read(8)
        if head[:2] != b"\x02\x00" or len(head) < 8:
            file.seek(start)
            return
        if head[4:6].decode("latin-1") in EXPLICIT_VR_LENGTH_32:
            (length,) = struct.unpack("<I", file.read(4))
        else:
            (length,) = struct.unpack("<H", head[6:8])
        file.seek(length, 1)


def _is_of_two_patients(series: Sequence[Series]) -> bool:
    datasets = _of_the_patient(series)
    # Objects that other systems made may lack the issuer, or even the ID; that alone makes no second patient.
    named = [d for d in datasets if identifier(d, "PatientID")] or datasets
    issuers = {identifier(d, "IssuerOfPatientID") for d in named} - {b""}
    return len({identifier(d, "PatientID") for d in named}) > 1 or len(issuers) > 1


def _of_the_patient(series: Sequence[Series]) -> list[Dataset]:
    """Return the headers that say whose the study is.

    A Key Object refers to others, and bears the patient under whom these were: a rejection note the former one.
    """
    datasets = [h.dataset for s in series for h in s.headers]
    return [d for d in datasets if string(d, "SOPClassUID") != KeyObjectSelectionDocumentStorage]


def _unnamed_flags(series: Sequence[Series]) -> tuple[Flag, ...]:
    named = {bool(identifier(d, "PatientID")) for d in _of_the_patient(series)}
    return (WITHOUT_PATIENT_ID,) if len(named) > 1 else ()


def _doubt_flags(headers: Sequence[ImageHeader]) -> list[Flag]:
    """Say which values break their VR; the values themselves may be a patient's."""
    counts = Counter(doubt for h in headers for doubt in h.doubts)
    verbatim = sorted(d.keyword for d in counts if d.kind == "unusable" and d.keyword in IDENTITY)
    flags = []
    if verbatim:
        text = f"Values that break their VR are repeated as they came: {', '.join(verbatim)}."
        flags.append(Flag("identity-verbatim", "warning", text))
        counts = Counter({d: n for d, n in counts.items() if d.keyword not in verbatim})
    if named := _named(counts, "repaired"):
        text = f"Values that break their VR were read all the same: {named}."
        flags.append(Flag("values-repaired", "info", text))
    if named := _named(counts, "unusable"):
        text = f"Values that break their VR count as missing, and no report repeats them: {named}."
        flags.append(Flag("values-unusable", "warning", text))
    return flags


def _named(counts: Counter[Doubt], kind: str) -> str:
    named = [f"{doubt.keyword} ({plural(n, 'image')})" for doubt, n in sorted(counts.items()) if doubt.kind == kind]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return ", ".join(named[:_MOST_NAMED]) + more


def _unreadable_flags(unreadable: Sequence[Unreadable]) -> tuple[Flag, ...]:
    if not unreadable:
        return ()
    # Codes and counts only: file names may hold patients' names.
    counts = Counter(u.reason.code for u in unreadable)
    codes = ", ".join(f"{n} {code}" for code, n in sorted(counts.items()))
    # A text file beside the images is no reason to doubt the images; a damaged DICOM file may be one of them.
    severity: Severity = "info" if set(counts) == {"not-dicom"} else "warning"
    return (Flag("unreadable-files", severity, f"Unreadable files: {len(unreadable)} ({codes})."),)


def _flags(chosen: Judged) -> tuple[Flag, ...]:
    """Doubts about the chosen series that a reader must know."""
    return (*_content_flags(chosen), *_geometry_flags(chosen), *_doubt_flags(chosen.series.headers))


def _content_flags(chosen: Judged) -> list[Flag]:
    first, family, flags = chosen.first, kernels.family_of(chosen.first), []
    if content_rules.has_contrast(chosen.known.datasets):
        flags.append(Flag("contrast", "info", "Contrast-enhanced: attenuation is higher than in an unenhanced scan."))
    if family == "soft":
        flags.append(Flag("soft-kernel", "info", f"Kernel {chosen.kernel} is a soft-tissue kernel."))
    if family == "unknown":
        kernel = f"Kernel «{chosen.kernel}» is not known" if chosen.kernel else "The kernel is not given"
        flags.append(Flag("kernel-unknown", "info", f"{kernel}; the images may be sharp or smooth."))
    if any(content_rules.is_lossy(d) for d in chosen.known.datasets):
        flags.append(Flag("lossy", "warning", "Lossy compression: attenuation values are not exact."))
    if any(derived_originals.is_original(d) for d in chosen.known.datasets):
        text = "Image Type says DERIVED, as older Siemens scanners wrote it into originals; taken for an original."
        flags.append(Flag("derived-original", "info", text))
    if chosen.spectral:
        flags.append(Flag("spectral", "warning", _SPECTRAL))
    flags += chosen.made_for
    if chosen.posture == "prone":
        flags.append(Flag("prone", "info", "Prone position."))
    if chosen.posture == "decubitus":
        flags.append(Flag("decubitus", "warning", "Lateral decubitus position: the lower lung is compressed."))
    if series_words.postures_disagree(first):
        text = "The words of the series and Patient Position tell different postures."
        flags.append(Flag("posture-contradicts", "warning", text))
    if chosen.breath == "expiration":
        text = "The series is described as expiratory: lung volume is lower and attenuation higher."
        flags.append(Flag("expiration", "warning", text))
    if chosen.series.part:
        text = f"The series contains several acquisitions; {chosen.series.part} was analysed."
        flags.append(Flag("part-of-series", "info", text))
    if chosen.series.copies:
        text = f"{plural(chosen.series.copies, 'duplicate image was', 'duplicate images were')} ignored."
        flags.append(Flag("copies-left-out", "info", text))
    return flags


def _geometry_flags(chosen: Judged) -> list[Flag]:
    first, stack, flags = chosen.first, chosen.known.stack, []
    assert stack is not None, "a suitable series has positions"
    step = stack.step_mm
    if step > THICK_STEP_MM:
        flags.append(Flag("thick-slices", "warning", f"Slice spacing is {step:.1f} mm: fine disease may be missed."))
    thickness = geometry.numbers(first, "SliceThickness", 1)
    if thickness is not None and not 0.5 <= thickness[0] / step <= 2.0:
        text = f"Slice Thickness is {thickness[0]:.2f} mm, but slice spacing is {step:.2f} mm."
        flags.append(Flag("slice-thickness-differs", "info", text))
    if not string(first, "FrameOfReferenceUID"):
        text = "Frame of Reference UID is missing; the segmentation (SEG) has one of its own and may not overlay."
        flags.append(Flag("no-frame-of-reference", "warning", text))
    if stack.tilted:
        text = f"Gantry tilt {stack.tilt_degrees:.1f}°: the slices were resampled to an orthogonal grid."
        flags.append(Flag("tilt-resampled", "info", text))
    if stack.gaps_mm:
        text = f"Slices are missing (gaps: {len(stack.gaps_mm)}, largest {max(stack.gaps_mm):.2f} mm); filled."
        flags.append(Flag("gaps-filled", "warning", f"{text[:-1]} by linear interpolation."))
    elif stack.deviation:
        text = f"Slice spacing varies by up to {stack.deviation:.0%}; the volume was resampled to uniform spacing."
        flags.append(Flag("spacing-resampled", "info", text))
    return flags
