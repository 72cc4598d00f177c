"""`dicomnode explain`: which series would be analysed, and why not the others, without analysing any."""

from dataclasses import dataclass
from pathlib import Path

from dicomnode.analysis.series.selection import Judged, find_files, group, read_headers, select, studies
from dicomnode.analysis.series.selection_rules import Rules


@dataclass(frozen=True)
class Row:
    """The decision on one series, or on one part of one (`part`, "" for a whole series)."""

    study_uid: str
    series_uid: str
    part: str
    modality: str
    slices: int
    step_mm: float | None
    kernel: str
    coverage_mm: float | None
    chosen: bool
    decision: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """The rows study by study, and in words what could not be read and what is doubtful of the chosen ones."""

    rows: tuple[Row, ...]
    flags: tuple[str, ...]


def explain(source: Path, limits: Rules) -> Explanation:
    """Judge the series of a folder (or of one file) by the rules. Each study is decided by itself."""
    headers, unreadable = read_headers(find_files(source) if source.is_dir() else [source])
    found = studies(group(headers)) or {"": []}
    rows: list[Row] = []
    flags: list[str] = []
    for study_uid, series in found.items():
        # What cannot be read is of no known study: it is told once.
        selection = select(series, unreadable if not rows and not flags else (), limits)
        rows += [_row(study_uid, judged, selection.why_chosen) for judged in selection.judged]
        flags += [f"{flag.severity}: {flag.text} ({flag.code})" for flag in selection.flags]
    return Explanation(tuple(rows), tuple(flags))


def _row(study_uid: str, judged: Judged, why_chosen: str) -> Row:
    reasons = "\n".join(f"{r.code}: {r.text}" for r in judged.reasons)
    return Row(
        study_uid=study_uid,
        series_uid=judged.series.series_uid,
        part=judged.series.part,
        modality=judged.series.modality,
        slices=len(judged.series.headers),
        step_mm=None if judged.step_mm is None else round(judged.step_mm, 3),
        kernel=judged.kernel,
        coverage_mm=None if judged.coverage_mm is None else round(judged.coverage_mm, 1),
        chosen=not judged.reasons,
        decision=reasons or f"chosen: {why_chosen}",
        codes=tuple(r.code for r in judged.reasons),
    )
