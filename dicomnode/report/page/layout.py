"""The strips of the summary page: warnings and doubts, pictures, numbers and risk, and what made them.

Each is as high as its words need: nothing is cut off.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dicomnode.analysis.arrays import LEFT, RIGHT
from dicomnode.analysis.findings import Findings, Flag, SliceRelevance
from dicomnode.analysis.measures.change import studied_at
from dicomnode.report import letters
from dicomnode.report.comparison import day
from dicomnode.report.dense import dense_ml, left_out_ml, volume_ml
from dicomnode.report.numbers import share, whole
from dicomnode.report.page import slices
from dicomnode.report.page.risk_plot import draw_risk, risk_height
from dicomnode.report.page.style import (
    FAINT,
    LEFT_LUNG,
    MARGIN,
    RIGHT_LUNG,
    SMALL,
    TEXT,
    WIDTH,
    FittedWords,
    axes,
    band,
    fitted,
    new_figure,
    paragraph,
    rule,
    write,
)
from dicomnode.report.page.views import Views
from dicomnode.report.refused import reasons
from dicomnode.report.structures import LUNGS
from dicomnode.report.wording import (
    DEMO,
    LIMITS,
    NO_DOUBTS,
    RESEARCH_BAND,
    flag_line,
    is_demo,
    made_from,
    ranked,
)
from dicomnode.words.numerals import plural

_RESEARCH: Final = "#8c1c13"
_DEMO: Final = "#b36b00"
_SEVERITY: Final = {"error": "#ff6b5e", "warning": "#ffc24b", "info": FAINT}
_RIGHT: Final = WIDTH - MARGIN
_BAND: Final = 38
#: An image has at most 65,535 rows.
_MOST_REASONS: Final = 200


def head(findings: Findings, studied: str = "") -> Figure:
    """Return the warnings, what this is and of which day, and all doubts, clinical ones first.

    `studied`: the day (DA) where the findings do not have it.
    """
    refused = findings.status == "refused"
    lines = [] if refused and not findings.flags else _flag_lines(ranked(findings.flags))
    bands = [(RESEARCH_BAND, _RESEARCH), *([(DEMO, _DEMO)] if is_demo(findings) else [])]
    top = len(bands) * _BAND
    figure = new_figure(top + 84 + sum(words.height for words, _ in lines))
    for k, (words, color) in enumerate(bands):
        band(figure, k * _BAND, _BAND, words, color)
    title = "NOT ANALYSED" if refused else "lung measurements and mortality risk"
    write(figure, MARGIN, top + 26, f"Chest CT: {title}", size=16, weight="bold", width=660)
    write(figure, _RIGHT, top + 26, _study_date(findings, studied), size=14, weight="bold", right=True, width=290)
    write(figure, MARGIN, top + 58, "Check the images first.", weight="bold")
    y: float = top + 69
    for line, color in lines:
        y = paragraph(figure, MARGIN, y, line, color=color)
    return figure


def _study_date(findings: Findings, studied: str) -> str:
    moment = None if findings.series is None else studied_at(findings.series)
    date = letters.shown(day(studied)) if moment is None else moment.date().isoformat()
    return f"Study of {date}" if date else ""


def _flag_lines(flags: Sequence[Flag]) -> list[tuple[FittedWords, str]]:
    # In grey, red is fainter than yellow: errors are bold too.
    lines = []
    for flag in flags:
        weight = "bold" if flag.severity == "error" else "normal"
        words = fitted(letters.shown(flag_line(flag)), weight=weight, hanging=True)
        lines.append((words, _SEVERITY[flag.severity]))
    return lines or [(fitted(NO_DOUBTS), FAINT)]


def pictures(views: Views, relevance: tuple[SliceRelevance, ...]) -> Figure:
    """Return a coronal and two axial slices with the outlines of the lungs."""
    figure = new_figure(470)
    coronal = axes(figure, MARGIN, 6, 500 if relevance else 556, 416)
    middle, basal = axes(figure, 614, 6, 380, 204), axes(figure, 614, 218, 380, 204)
    for area, view in ((coronal, views.coronal), (middle, views.middle), (basal, views.basal)):
        slices.draw(area, view, size=11)
    if relevance:
        _relevance(axes(figure, 538, 6, 46, 416), coronal, views, relevance)
    shown = [view.labels for view in (views.coronal, views.middle, views.basal)]
    sides = ((RIGHT, "Right lung: solid", RIGHT_LUNG), (LEFT, "Left lung: dashed", LEFT_LUNG))
    found = [side for side in sides if any((labels == side[0]).any() for labels in shown)]
    for k, (_, words, color) in enumerate(found):
        write(figure, MARGIN + 192 * k, 438, words, color=color, weight="bold", width=180)
    outlines = "Outlines: automatic. The patient's right is on the left."
    write(figure, _RIGHT, 438, outlines, color=FAINT, right=True, width=570)
    bars = "Bars: weight of each level in the networks' prediction; not proof of disease there. " if relevance else ""
    write(figure, _RIGHT, 458, f"{bars}Window -600/1500 HU.", size=SMALL, color=FAINT, right=True)
    return figure


def _relevance(area: Axes, coronal: Axes, views: Views, relevance: tuple[SliceRelevance, ...]) -> None:
    """Draw a bar for each slice that the networks looked at, at its height in the coronal picture beside it."""
    top_mm, bottom_mm = views.coronal_z_mm
    last_row = views.coronal.hu.shape[0] - 1
    heights = np.array([one.z_mm for one in relevance])
    weights = np.array([one.weight for one in relevance])
    rows = (heights - top_mm) / (bottom_mm - top_mm) * last_row
    apart = np.ptp(rows) / (len(rows) - 1) if len(rows) > 1 else last_row / 2
    area.barh(rows, weights / weights.max(), height=0.8 * apart, color=FAINT)
    coronal.apply_aspect()  # only then are the limits those that are drawn
    area.set_ylim(coronal.get_ylim())
    area.set_xlim(0, 1)
    area.axis("off")


def numbers(findings: Findings) -> Figure:
    """Return the table of the lungs beside the predicted risk."""
    rows = _rows(findings)
    figure = new_figure(max(66 + 26 * len(rows), risk_height(findings.risk)))
    write(figure, MARGIN, 22, "Measurements", size=14, weight="bold", width=_TABLE - MARGIN)
    columns = _columns(findings)
    for k, (words, color) in enumerate(columns.values()):
        write(figure, _column(k, len(columns)), 50, words, color=color, weight="bold", right=True, width=_CELL - 6)
    for k, (name, values) in enumerate(rows):
        y = 76 + 26 * k
        rule(figure, y - 13, MARGIN, _TABLE)
        # A single value stands at the right edge, and may be as long as the name leaves room.
        cell = _CELL if len(values) > 1 else 2.5 * _CELL
        write(figure, MARGIN, y, name, color=FAINT, width=_TABLE - MARGIN - len(values) * cell)
        for column, value in enumerate(values):
            write(figure, _column(column, len(values)), y, value, right=True, width=cell - 6)
    draw_risk(figure, findings.risk)
    return figure


#: The right end of the table, and the width of a column.
_TABLE: Final = 520
_CELL: Final = 68


def _column(place: int, count: int) -> float:
    return _TABLE - _CELL * (count - 1 - place)


def _columns(findings: Findings) -> dict[str, tuple[str, str]]:
    """Name and colour of each column by its region; a patient with one lung has one."""
    sides = {"right": ("Right", RIGHT_LUNG), "left": ("Left", LEFT_LUNG)}
    found = {region: column for region, column in sides.items() if region in findings.quantities}
    if not findings.quantities.keys() & LUNGS.keys() or len(found) == len(sides):
        return {"lungs": ("Both", TEXT), **sides}
    return found


def _rows(findings: Findings) -> list[tuple[str, list[str]]]:
    regions = list(_columns(findings))
    rows = [("Volume, ml", [_written(volume_ml(findings, region)) for region in regions])]
    for name, attribute, form in (
        ("HAA (-600 to -250 HU), %", "haa_percent", share),
        ("LAA (< -950 HU), %", "laa950_percent", share),
        ("Mean attenuation, HU", "mean_hu", whole),
    ):
        found = [findings.quantities.get(region) for region in regions]
        rows.append((name, ["-" if q is None else form(getattr(q, attribute)) for q in found]))
    for name, of in (("Dense (> -250 HU) inside, ml", dense_ml), ("Left out of the outline, at least ml", left_out_ml)):
        measured = [of(findings, region) for region in regions]
        if any(value is not None for value in measured):
            rows.append((name, [_written(value) for value in measured]))
    for name, parts in _PARTS:
        shares = [findings.quantities.get(part) for part in parts]
        rows.append((name, [" / ".join("-" if q is None else share(q.haa_percent) for q in shares)]))
    return rows


#: Disease of systemic sclerosis begins at the base and under the pleura: high attenuation there, in one line each.
_PARTS: Final = (
    ("HAA upper / middle / lower third, %", ("upper_third", "middle_third", "lower_third")),
    ("HAA core / rim / basal rim, %", ("core", "rim", "lower_third_rim")),
)


def _written(value: float | None) -> str:
    return "-" if value is None else whole(value)


def provenance(findings: Findings) -> Figure:
    """Return what made the numbers, down to the digests, and the limits of their use."""
    lines = [fitted(letters.shown(words), size=SMALL) for words in _made_by(findings)]
    high = sum(line.height for line in lines)
    figure = new_figure(34 + high + _BAND)
    rule(figure, 6)
    y: float = 13
    for line in lines:
        y = paragraph(figure, MARGIN, y, line, color=FAINT)
    band(figure, 34 + high, _BAND, RESEARCH_BAND, _RESEARCH)
    return figure


def _made_by(findings: Findings) -> list[str]:
    lines = []
    if findings.series is not None:
        s = findings.series
        z, y, x = s.spacing_mm
        lines.append(f"Series {s.series_uid}")
        lines.append(
            f"{plural(s.slices, 'slice')}, voxel {x:.2f} x {y:.2f} x {z:.2f} mm (x, y, z), "
            f"kernel {s.kernel or 'not stated'}"
        )
    if findings.lungs is not None:
        r = findings.risk
        model = "none" if r is None else f"{r.bundle} {r.version} (sha256 {r.bundle_sha256[:16]}), {r.intended_use}"
        made = f"Segmentation: {findings.lungs.segmenter} {findings.lungs.segmenter_version}. Risk model: {model}."
        lines.append(made)
    return [*lines, f"{LIMITS} dicomnode {findings.software_version}.", *made_from(findings)]


def refusal(findings: Findings) -> Figure:
    """Return why the study was not analysed, series by series."""
    told = reasons(findings)
    if more := told[_MOST_REASONS:]:
        told[_MOST_REASONS:] = [f"{plural(len(more), 'more series', 'more series')}: see the structured report."]
    lines = [fitted(letters.shown(words), hanging=True) for words in told]
    figure = new_figure(40 + sum(line.height for line in lines))
    write(figure, MARGIN, 14, "Why this study was not analysed", size=14, weight="bold")
    y: float = 31
    for line in lines:
        y = paragraph(figure, MARGIN, y, line)
    return figure
