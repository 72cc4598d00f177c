"""UIDs that follow from what an object is about, so that a repeated run sends the same objects again.

Form: "2.25." and the decimal value of a UUID (PS3.5 B.2), here made from a SHA-256 hash; at most 44 characters.
"""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Literal

from dicomnode.analysis.findings import Findings, TrendPoint
from dicomnode.report.context import Kind

Structure = Literal[
    "right lung",
    "left lung",
    "lungs",
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "left lower lobe",
    "mortality risk",
    "right high-attenuation area",
    "left high-attenuation area",
    "right low-attenuation area",
    "left low-attenuation area",
]


def derive(*parts: str | bytes) -> str:
    """Return the UID of these parts. Each part is hashed by itself, so ("a", "bc") and ("ab", "c") differ."""
    hashed = [hashlib.sha256(p if isinstance(p, bytes) else p.encode()).digest() for p in parts]
    digest = hashlib.sha256(b"".join(hashed)).digest()
    # Version and variant bits make it a UUID in form; which version is of no consequence to DICOM.
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def sop_instance(kind: Kind, study_uid: str, result: Findings | TrendPoint) -> str:
    """SOP Instance UID of the object of this kind, of this result or of a prior scan's."""
    return derive("instance", kind.name, study_uid, *result.version)


def series(kind: Kind, study_uid: str, result: Findings | TrendPoint) -> str:
    """Series Instance UID: a new series for each object and each version of it."""
    return derive("series", kind.name, study_uid, *result.version)


def dimension_organization(seg_uid: str) -> str:
    """Dimension Organization UID of a segmentation."""
    return derive("dimension organization", seg_uid)


def frame_of_reference(series_uid: str) -> str:
    """Frame of Reference UID for a source series that has none: its slices then share at least this one."""
    return derive("frame of reference", series_uid)


def device(algorithm_digest: str) -> str:
    """Device UID (IHE AIR): changes with every change of the algorithms and their weights."""
    return derive("device", algorithm_digest)


def tracking(patient: Sequence[bytes], structure: Structure) -> str:
    """Tracking UID: the same for this patient and structure in every study, so that follow-ups join."""
    return derive("tracking", structure, *patient)
