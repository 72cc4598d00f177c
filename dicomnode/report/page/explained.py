"""The strip of the summary page that shows how the bundle weighs this scan: numbers by arm, and where networks look."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from dicomnode.analysis.findings import ArmExplanation, Findings, HeatMap
from dicomnode.report import letters
from dicomnode.report.explanation import (
    MOST_ARMS,
    heading,
    heat_lines,
    preface,
    rows,
    total,
    unshown,
)
from dicomnode.report.numbers import signed
from dicomnode.report.page import slices
from dicomnode.report.page.style import (
    BACKGROUND,
    BODY,
    FAINT,
    MARGIN,
    RULE,
    SMALL,
    TEXT,
    WIDTH,
    FittedWords,
    axes,
    cut,
    extent,
    fitted,
    new_figure,
    paragraph,
    write,
)
from dicomnode.report.page.views import Looked, Views
from dicomnode.words.numerals import plural

#: Neither a lung's outline nor the red and yellow that mark disease elsewhere.
HEAT: Final = "#b18cff"
_GAP: Final = 34
_COLUMN: Final = (WIDTH - 2 * MARGIN - _GAP) // 2
_HEAD: Final = 28
_ROW: Final = 22
_BELOW: Final = 18
#: Within a column: right ends of value and number, and the bars between them.
_VALUE: Final = 334
_BARS: Final = (344, 412)
_TOTAL: Final = 128
_PICTURE: Final = (176, 150)


def strip(findings: Findings, views: Views) -> Figure | None:
    """Return the strip; None where the findings explain nothing."""
    risk = findings.risk
    if risk is None or risk.explanation is None or not risk.explanation.arms:
        return None
    shown = [arm for arm in risk.explanation.arms if arm.weight > 0][:MOST_ARMS]
    said = [fitted(letters.shown(words), size=SMALL) for words in (*preface(risk), *unshown(risk.explanation))]
    top = 42 + sum(words.height for words in said) + 10
    places, bottom = _placed(shown, top)
    figure = new_figure(bottom)
    title = f"How the model weighs this scan (risk within {plural(risk.explanation.years, 'year')})"
    write(figure, MARGIN, 22, title, size=14, weight="bold")
    y: float = 38
    for words in said:
        y = paragraph(figure, MARGIN, y, words, color=FAINT)
    most = max((abs(added) for arm in shown for _, _, added in rows(arm)), default=0.0)
    for arm, (x, at) in zip(shown, places, strict=True):
        head = _head(arm)
        room = _COLUMN - (_TOTAL if total(arm) else 0)
        write(figure, x, at + head / 2 - 4, letters.shown(heading(arm)), weight="bold", width=room)
        write(
            figure, x + _COLUMN, at + head / 2 - 4, total(arm), size=SMALL, weight="bold", right=True, width=_TOTAL - 8
        )
        if arm.heat is not None:
            _network(figure, x, at + head, arm.heat, next((one for one in views.looked if one.arm == arm.arm), None))
        else:
            below = _table(figure, x, at + head, arm, most)
            paragraph(figure, x, below, _why_not(arm), color=FAINT)
    return figure


def _placed(shown: Sequence[ArmExplanation], top: float) -> tuple[list[tuple[float, float]], float]:
    """Return where each arm begins, the next always in the shorter of two columns; and how high the strip is."""
    columns = [top, top]
    found: list[tuple[float, float]] = []
    for arm in shown:
        place = columns.index(min(columns))
        found.append((MARGIN + place * (_COLUMN + _GAP), columns[place]))
        columns[place] += _height(arm) + _BELOW
    return found, max(columns)


def _height(arm: ArmExplanation) -> float:
    if arm.heat is not None:
        return _head(arm) + _PICTURE[1]
    return _head(arm) + sum(_steps(arm)) + _why_not(arm).height


def _head(arm: ArmExplanation) -> float:
    return max(_HEAD, _high(heading(arm), BODY, "bold") + 10)


def _steps(arm: ArmExplanation) -> list[float]:
    """Return the height of each row: a bundle's words may be of letters that are higher than ours."""
    return [max(_ROW, _high(name, SMALL), _high(value, SMALL)) for name, value, _ in rows(arm)]


def _high(words: str, size: float, weight: str = "normal") -> float:
    line = cut(letters.shown(words), _COLUMN, size=size, weight=weight)
    return extent(line, size, weight)[1] + 2 if line else 0.0


def _why_not(arm: ArmExplanation) -> FittedWords:
    return fitted(letters.shown(arm.not_explained), _COLUMN, size=SMALL)


def _table(figure: Figure, x: float, top: float, arm: ArmExplanation, most: float) -> float:
    """Write what the inputs add, with bars; return where the next may begin."""
    told = rows(arm)
    left, right = _BARS
    middles = []
    y = top
    for (name, value, added), step in zip(told, _steps(arm), strict=True):
        middles.append(y + step / 2)
        y += step
        written = cut(letters.shown(value), _VALUE / 2, size=SMALL)
        room = _VALUE - extent(written, SMALL)[0] - 10
        write(figure, x, middles[-1], letters.shown(name), size=SMALL, color=FAINT, width=room)
        write(figure, x + _VALUE, middles[-1], written, size=SMALL, right=True, width=_VALUE / 2)
        number, room = signed(added, 2), _COLUMN - right - 4
        write(figure, x + _COLUMN, middles[-1], number, size=SMALL, weight="bold", right=True, width=room)
    if told:
        area = axes(figure, x + left, top, right - left, y - top)
        area.set_ylim(y, top)
        _bars(area, middles, [added for _, _, added in told], most)
    return y


def _bars(area: Axes, middles: Sequence[float], added: Sequence[float], most: float) -> None:
    """Draw a bar for each number from the line of 0; filled ones raise the risk."""
    for middle, number in zip(middles, added, strict=True):
        filled = number > 0
        color, edge = (HEAT, HEAT) if filled else (BACKGROUND, FAINT)
        area.barh(middle, number, 0.52 * _ROW, color=color, edgecolor=edge)
    area.axvline(0, color=RULE, linewidth=1)
    area.set_xlim(-1.06 * most, 1.06 * most)
    area.axis("off")


def _network(figure: Figure, x: float, top: float, heat: HeatMap, looked: Looked | None) -> None:
    width, height = _PICTURE
    left: float = x
    if looked is not None:
        draw(axes(figure, x, top, width, height), looked, heat, size=9)
        left = x + width + 16
    y = top - 2
    for words in heat_lines(heat):
        y = paragraph(figure, left, y, fitted(words, x + _COLUMN - left, size=SMALL), color=TEXT) + 4


def draw(area: Axes, looked: Looked, heat: HeatMap, *, size: float) -> None:
    """Draw a slice with its heat laid over it, clear where there is none."""
    slices.draw(area, looked.view, size=size)
    faded = LinearSegmentedColormap.from_list("heat", [(*_rgb(), 0.0), (*_rgb(), 0.65)])
    cells = np.asarray(heat.cells)
    left, right, top, bottom = looked.covers
    # Bilinear between centres, as the map is interpolated in training; the outer half cell is flat.
    area.imshow(
        np.pad(cells, 1, mode="edge"),
        cmap=faded, vmin=0.0, vmax=1.0, interpolation="bilinear", interpolation_stage="data", zorder=1.5,
        extent=_padded((left, right, bottom, top), cells.shape),
    )  # fmt: skip
    # The slice sets proportions and limits, not the map, which may reach beyond it.
    (row_mm, column_mm), (high, wide) = looked.view.spacing_mm, looked.view.hu.shape
    area.set_adjustable("box")
    area.set_anchor("NW")
    area.set_aspect(row_mm / column_mm)
    area.set_xlim(-0.5, wide - 0.5)
    area.set_ylim(high - 0.5, -0.5)


def _rgb() -> tuple[float, float, float]:
    red, green, blue = (int(HEAT[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue


def _padded(extent: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    left, right, bottom, top = extent
    down, across = (bottom - top) / shape[0], (right - left) / shape[1]
    return left - across, right + across, bottom + down, top - down
