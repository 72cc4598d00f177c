"""From files to the one series that is analysed: group, judge, rank, and say why.

`select` never guesses silently: each series that is not chosen carries its reasons, and doubts about the chosen one are
flags.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from dicomnode.analysis import geometry, kernels, suitability
from dicomnode.analysis.findings import Flag, Reason, RejectedSeries, Severity
from dicomnode.analysis.geometry import Stack, positions_mm
from dicomnode.analysis.headers import Header, Series, Unreadable, find_files, identifier, read_headers, string, strings

__all__ = [
    "Header",
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
KERNEL_ORDER: tuple[kernels.Family, ...] = ("lung", "medium", "unknown", "soft")


@dataclass(frozen=True)
class Selection:
    """The series to analyse and why, or None; every other series with its reasons; doubts about the input."""

    chosen: Series | None
    why_chosen: str
    rejected: tuple[RejectedSeries, ...]
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Candidate:
    """A suitable series and what it is ranked by."""

    series: Series
    stack: Stack
    kernel: str
    family: kernels.Family
    prone: bool
    expiration: bool
    primary: bool

    @property
    def rank(self) -> tuple[int | float | str, ...]:
        """Smaller is better: usual posture and breath, thin, kernel, coverage, primary, then step, slices and UID."""
        step = self.stack.step_mm
        return (
            self.prone + self.expiration,
            0 if step <= 1.5 else 1 if step <= THICK_STEP_MM else 2,
            KERNEL_ORDER.index(self.family),
            # Reconstructions of one scan differ by a few slices: that must not outweigh the rest.
            -round(self.stack.coverage_mm / 20),
            0 if self.primary else 1,
            round(step, 2),
            -len(self.series.headers),
            self.series.series_uid,
        )

    @property
    def description(self) -> str:
        """What it is, in words."""
        kernel = f"kernel {self.kernel} ({self.family})" if self.kernel else "kernel not given"
        return f"{self.stack.step_mm:.1f} mm step, {kernel}, {self.stack.coverage_mm:.0f} mm covered"


def group(headers: Iterable[Header]) -> list[Series]:
    """The headers by study and Series Instance UID, in the order in which the series first appear."""
    found: dict[tuple[str, str], list[Header]] = {}
    for h in headers:
        key = string(h.dataset, "StudyInstanceUID"), string(h.dataset, "SeriesInstanceUID")
        found.setdefault(key, []).append(h)
    series = []
    for (study_uid, series_uid), members in found.items():
        modality = next((m for h in members if (m := string(h.dataset, "Modality"))), "")
        series.append(Series(series_uid, study_uid, modality, tuple(members)))
    return series


def studies(series: Iterable[Series]) -> dict[str, list[Series]]:
    """The series by Study Instance UID."""
    found: dict[str, list[Series]] = {}
    for s in series:
        found.setdefault(s.study_uid, []).append(s)
    return found


def select(series: Sequence[Series], unreadable: Sequence[Unreadable] = ()) -> Selection:
    """The best suitable series of one study.

    Raises:
        ValueError: the series are of more than one study (see `studies`).
    """
    if len(studies(series)) > 1:
        raise ValueError(f"series of {len(studies(series))} studies: select takes one study at a time")
    flags = _unreadable_flags(unreadable)
    if not series:
        return Selection(None, "No DICOM object could be read.", (), flags)
    if _is_of_two_patients(series):
        reason = Reason("two-patients", "Patient ID or its issuer differ within the study: correct it first.")
        return Selection(None, reason.text, tuple(_reject(s, (reason,)) for s in series), flags)

    judged = [(s, known, suitability.reasons(known)) for s in series for known in [suitability.facts(s)]]
    rejected = [_reject(s, reasons) for s, _, reasons in judged if reasons]
    candidates = [_candidate(s, k.stack) for s, k, reasons in judged if not reasons and k.stack is not None]
    if not candidates:
        codes = sorted({r.code for s in rejected for r in s.reasons})
        return Selection(None, f"No series is suitable ({', '.join(codes)}).", tuple(rejected), flags)

    best, *others = sorted(candidates, key=lambda c: c.rank)
    better = Reason(
        "another-series-preferred", f"Suitable; preferred was {best.series.series_uid}: {best.description}."
    )
    rejected += [_reject(c.series, (better,)) for c in others]
    alternatives = "the only suitable series" if not others else f"preferred to {len(others)} other suitable series"
    return Selection(best.series, f"{best.description}; {alternatives}", tuple(rejected), flags + _flags(best))


def input_digest(series: Series) -> str:
    """SHA-256, hex, over the sorted pairs of SOP Instance UID and SHA-256 of the file's data set.

    The File Meta Information is left out: it names who wrote the file, so a second copy from another peer would differ.

    Raises:
        OSError: a file cannot be read.
    """
    pairs = []
    for h in series.headers:
        with h.path.open("rb") as file:
            _seek_data_set(file)
            pairs.append(f"{string(h.dataset, 'SOPInstanceUID')} {hashlib.file_digest(file, 'sha256').hexdigest()}\n")
    return hashlib.sha256("".join(sorted(pairs)).encode("ascii")).hexdigest()


def _seek_data_set(file: BinaryIO) -> None:
    """To the first byte after the File Meta Information (group 0002, always explicit little endian; PS3.10 7.1)."""
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


def _candidate(series: Series, stack: Stack) -> Candidate:
    first = series.headers[0].dataset
    return Candidate(
        series=series,
        stack=stack,
        kernel=kernels.name(first),
        family=kernels.family_of(first),
        prone=string(first, "PatientPosition") in ("HFP", "FFP"),
        expiration=any(w.startswith("exp") for w in string(first, "SeriesDescription").lower().split()),
        primary=strings(first, "ImageType")[1:2] == ["PRIMARY"],
    )


def _reject(series: Series, reasons: tuple[Reason, ...]) -> RejectedSeries:
    return RejectedSeries(series.series_uid, series.modality, len(series.headers), reasons)


def _is_of_two_patients(series: Sequence[Series]) -> bool:
    datasets = [h.dataset for s in series for h in s.headers]
    # Objects that other systems made may lack the issuer; that alone makes no second patient.
    issuers = {identifier(d, "IssuerOfPatientID") for d in datasets} - {b""}
    return len({identifier(d, "PatientID") for d in datasets}) > 1 or len(issuers) > 1


def _unreadable_flags(unreadable: Sequence[Unreadable]) -> tuple[Flag, ...]:
    if not unreadable:
        return ()
    # Codes and counts only: file names may hold patients' names.
    counts = Counter(u.reason.code for u in unreadable)
    codes = ", ".join(f"{n} {code}" for code, n in sorted(counts.items()))
    # A text file beside the images is no reason to doubt the images; a damaged DICOM file may be one of them.
    severity: Severity = "info" if set(counts) == {"not-dicom"} else "warning"
    return (Flag("unreadable-files", severity, f"{len(unreadable)} files could not be read ({codes})."),)


def _flags(chosen: Candidate) -> tuple[Flag, ...]:
    first, step = chosen.series.headers[0].dataset, chosen.stack.step_mm
    flags = []
    if string(first, "ContrastBolusAgent"):
        flags.append(Flag("contrast", "info", "Contrast medium was given: attenuation is higher than without it."))
    if step > THICK_STEP_MM:
        flags.append(Flag("thick-slices", "warning", f"Slices are {step:.1f} mm apart: fine disease may be missed."))
    if chosen.family == "soft":
        flags.append(Flag("soft-kernel", "info", f"Kernel {chosen.kernel} is a soft-tissue kernel."))
    if chosen.family == "unknown":
        flags.append(Flag("kernel-unknown", "info", f"The sharpness of kernel «{chosen.kernel}» is not known."))
    thickness = geometry.numbers(first, "SliceThickness", 1)
    if thickness is not None and not 0.5 <= thickness[0] / step <= 2.0:
        text = f"Slice Thickness is {thickness[0]:.2f} mm, but slices are {step:.2f} mm apart."
        flags.append(Flag("slice-thickness-differs", "info", text))
    if not string(first, "FrameOfReferenceUID"):
        text = "Frame of Reference UID is missing: a segmentation (SEG) needs one, so none can refer to these images."
        flags.append(Flag("no-frame-of-reference", "warning", text))
    if string(first, "LossyImageCompression") == "01":
        flags.append(Flag("lossy", "warning", "The images were compressed with loss: attenuation is not exact."))
    if chosen.prone:
        flags.append(Flag("prone", "info", "The patient lies prone."))
    if chosen.expiration:
        flags.append(Flag("expiration", "warning", "The series is described as expiratory: volumes and HU differ."))
    return tuple(flags)
