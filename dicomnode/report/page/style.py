"""Colours, letters and words on the summary page. Places are pixels from the upper left corner.

Nothing else draws words on our pictures (`tests/unit/report/page/test_fit.py`): here each line is measured in the fonts
that draw it, so that none runs out of its room.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from uniseg.graphemecluster import grapheme_clusters
from uniseg.linebreak import line_break_units

from dicomnode.report import letters

BACKGROUND: Final = "#10151a"
TEXT: Final = "#e8edf2"
FAINT: Final = "#aab6c2"
RULE: Final = "#33404c"
# The colours of the segments in the SEG object; colour-blind readers can tell them apart (Okabe and Ito).
RIGHT_LUNG: Final = "#e69f00"
LEFT_LUNG: Final = "#56b4e9"
DPI: Final = 100
WIDTH: Final = 1024
MARGIN: Final = 30
#: In points, on a page of 100 pixels an inch: shown 768 pixels high, the smallest words are still eight pixels high.
SMALL: Final = 10.5
BODY: Final = 12.0
TICKS: Final = 9.0
#: Pixels between lines that stand below one another, by the size of their letters.
_STEPS: Final = {BODY: 21, SMALL: 18}
_INDENT: Final = 22
#: Of one paragraph. Ours are shorter by far; values of headers have any length.
_MOST_LETTERS: Final = 4000


def _add_fonts() -> None:
    # They come with our dependencies: the page looks the same everywhere. Of two fonts of one name the first is taken,
    # and the system may have others of these names: ours go before them (matplotlib's own do already).
    for family, path in letters.fonts().items():
        if family == letters.MAIN:
            continue
        fontManager.addfont(path)
        font = replace(fontManager.ttflist.pop(), name=family, weight=400)
        # Drawn in one weight: named as bold too, or each bold word would be a line in the log.
        fontManager.ttflist[:0] = [font, replace(font, weight=700)]


_add_fonts()
# Words come from headers: what stands there between two dollar signs is no formula. One that cannot be read would leave
# no page.
mpl.rcParams["text.parse_math"] = False


def _font(words: str, size: float, weight: str) -> FontProperties:
    return FontProperties(family=letters.families(words), size=size, weight=weight)


@cache
def _renderer() -> RendererAgg:
    return RendererAgg(1, 1, DPI)


def extent(words: str, size: float = BODY, weight: str = "normal") -> tuple[float, float]:
    """Return width and height of a line as it is drawn, in pixels."""
    # matplotlib gives a line the height of its first font at least, and more where another font is higher.
    line = Text(0, 0, words, fontproperties=_font(words, size, weight), figure=_scratch())
    box = line.get_window_extent(_renderer())
    return float(box.width), float(box.height)


@cache
def _scratch() -> Figure:
    return Figure(figsize=(1, 1), dpi=DPI)


@dataclass(frozen=True)
class FittedWords:
    """Words broken into lines that fit their room. `steps`: the height of each line; `indent`: of all but the first."""

    lines: tuple[str, ...]
    steps: tuple[float, ...]
    size: float
    weight: str
    indent: float

    @property
    def height(self) -> float:
        """Of all lines, in pixels."""
        return sum(self.steps)


def fitted(
    words: str, width: float = WIDTH - 2 * MARGIN, *, size: float = BODY, weight: str = "normal", hanging: bool = False
) -> FittedWords:
    """Break words into lines of a width in pixels, as Unicode allows (UAX 14); a wider word breaks between letters."""
    indent = _INDENT if hanging else 0
    lines: list[str] = []
    rest = list(_units(words if len(words) <= _MOST_LETTERS else f"{words[:_MOST_LETTERS].rstrip()}…"))
    while rest:
        room = width - (indent if lines else 0)
        count = _fitting(rest, room, size, weight)
        if not count:
            rest[0:1] = grapheme_clusters(rest[0])
            count = max(_fitting(rest, room, size, weight), 1)
        lines.append("".join(rest[:count]).rstrip())
        rest = rest[count:]
    step = _STEPS.get(size, 1.75 * size)
    # Some scripts, and signs upon letters, are higher than the usual line.
    steps = tuple(max(step, extent(line, size, weight)[1] + 2) for line in lines)
    return FittedWords(tuple(lines), steps, size, weight, indent)


#: A number keeps its unit.
_WORD: Final = re.compile(r"\S+(?:(?<=\d) (?=(?:%|ml|HU|mm|points?|years?|days)\b|%)\S+)*\s*")

#: From here on letters break within words.
_IDEOGRAPHS: Final = "\u2e80"


def _units(words: str) -> Iterator[str]:
    """Yield the parts between which a line may break."""
    for word in _WORD.findall(words):
        yield from line_break_units(word) if max(word) >= _IDEOGRAPHS else (word,)


def _fitting(parts: Sequence[str], room: float, size: float, weight: str) -> int:
    """Return how many of the parts fit beside each other."""

    def wide(count: int) -> float:
        return extent("".join(parts[:count]).rstrip(), size, weight)[0]

    most = 8
    while most < len(parts) and wide(most) <= room:
        most *= 2
    return bisect_right(range(1, min(most, len(parts)) + 1), room, key=wide)


def cut(words: str, width: float, *, size: float = BODY, weight: str = "normal") -> str:
    """Return words that stand in one line; what has no room there is three dots."""
    if extent(words, size, weight)[0] <= width:
        return words
    clusters = [*grapheme_clusters(words)]
    room = width - extent("…", size, weight)[0]
    kept = "".join(clusters[: _fitting(clusters, room, size, weight)]).rstrip()
    return f"{kept}…"


def new_figure(height: float) -> Figure:
    """Return an empty strip of the page."""
    return Figure(figsize=(WIDTH / DPI, round(height) / DPI), dpi=DPI, facecolor=BACKGROUND)


def write(
    figure: Figure,
    x: float,
    y: float,
    words: str,
    *,
    size: float = BODY,
    color: str = TEXT,
    weight: str = "normal",
    right: bool = False,
    width: float | None = None,
) -> None:
    """Write one line, centred on `y`; `x` of its left or right end; `width`: its room, by default up to the margin."""
    room = (x - MARGIN if right else WIDTH - MARGIN - x) if width is None else width
    line = cut(words, room, size=size, weight=weight)
    place, alignment = _place(figure, x, y), "right" if right else "left"
    figure.text(*place, line, color=color, ha=alignment, va="center", fontproperties=_font(line, size, weight))


def paragraph(figure: Figure, x: float, top: float, words: FittedWords, *, color: str = TEXT) -> float:
    """Write lines below one another, the first one's upper edge at `top`; return where the next may begin."""
    for k, (line, step) in enumerate(zip(words.lines, words.steps, strict=True)):
        place = _place(figure, x + (words.indent if k else 0), top + step / 2)
        font = _font(line, words.size, words.weight)
        figure.text(*place, line, color=color, ha="left", va="center", fontproperties=font)
        top += step
    return top


def mark(area: Axes, x: float, y: float, words: str, *, size: float, center: bool = False) -> None:
    """Write upon an image, with a dark rim so that it shows on bone too; `x` and `y` as shares of the axes."""
    area.text(
        x,
        y,
        words,
        transform=area.transAxes,
        fontproperties=_font(words, size, "bold"),
        color="white",
        ha="center" if center else "left",
        va="center" if center else "top",
        path_effects=[withStroke(linewidth=2.5, foreground="black")],
    )


def beside(area: Axes, places: Sequence[tuple[float, float, str]], *, size: float = TICKS) -> None:
    """Write labels to the right of points (x, y, words), apart from each other; of too many for the height, some."""
    bottom, top = area.bbox.y0, area.bbox.y1
    gap = extent("1", size)[1] + 3
    most = int((top - bottom) / gap)
    named = sorted(places, key=lambda place: place[1])
    if len(named) > most:
        named = [named[round(k * (len(named) - 1) / (most - 1))] for k in range(most)]
    heights = [float(area.transData.transform((x, y))[1]) for x, y, _ in named]
    for (x, y, words), height, level in zip(named, heights, apart(heights, gap, bottom, top), strict=True):
        offset = (5.0, (level - height) * 72 / DPI)
        area.annotate(
            *(words, (x, y), offset),
            textcoords="offset points", va="center", color=TEXT, fontproperties=_font(words, size, "normal"),
        )  # fmt: skip


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending places as little as it needs to be `gap` from each other, between `low` and `high`."""
    moved = list(places)
    for _ in range(len(moved)):  # groups that touch share the way that they have to go
        for k, (below, above) in enumerate(pairwise(moved)):
            if above - below < gap - 1e-6:
                middle = (below + above) / 2
                moved[k], moved[k + 1] = middle - gap / 2, middle + gap / 2
    for k in range(len(moved)):
        moved[k] = max(moved[k], low + gap / 2 if not k else moved[k - 1] + gap)
    for k in reversed(range(len(moved))):
        moved[k] = min(moved[k], high - gap / 2 if k == len(moved) - 1 else moved[k + 1] - gap)
    return moved


def dress(area: Axes, *, size: float = TICKS) -> None:
    """Give axes with numbers their colours and letters, and no frame but the left and lower line."""
    font = letters.MAIN
    area.tick_params(colors=FAINT, labelsize=size, labelfontfamily=font)
    for name, spine in area.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(RULE)


def ticks(area: Axes, places: Sequence[tuple[float, str]], *, size: float = TICKS, most: float = WIDTH) -> None:
    """Write below the axes, at x, the words that have room beside each other.

    The last and the first come before the others. `most`: the widest, in pixels.
    """
    kept: list[tuple[float, float, float, str]] = []
    for x, words in (*places[-1:], *places[:1], *places[-2:0:-1]):
        line = cut(words, most, size=size)
        middle = float(area.transData.transform((x, 0.0))[0])
        half = extent(line, size)[0] / 2 + 4
        if all(middle + half <= left or middle - half >= right for left, right, _, _ in kept):
            kept.append((middle - half, middle + half, x, line))
    area.set_xticks([x for _, _, x, _ in kept], [line for *_, line in kept])
    area.tick_params(axis="x", labelsize=size)
    for label, (*_, line) in zip(area.get_xticklabels(), kept, strict=True):
        label.set_fontproperties(_font(line, size, "normal"))


def name_axes(area: Axes, *, x: str, y: str) -> None:
    """Write what the axes show."""
    small: dict[str, Any] = {"color": FAINT, "fontproperties": _font(x + y, SMALL, "normal")}
    area.set_xlabel(x, **small)
    area.set_ylabel(y, rotation=0, labelpad=8, **small)


def rule(figure: Figure, y: float, left: float = MARGIN, right: float = WIDTH - MARGIN) -> None:
    """Draw a thin line."""
    (x0, height), (x1, _) = _place(figure, left, y), _place(figure, right, y)
    figure.add_artist(Line2D([x0, x1], [height, height], color=RULE, linewidth=0.8))


def band(figure: Figure, top: float, height: float, words: str, color: str) -> None:
    """Draw a warning across the page."""
    area = axes(figure, 0, top, WIDTH, height, facecolor=color)
    area.set_xticks([])
    area.set_yticks([])
    for spine in area.spines.values():
        spine.set_visible(False)
    line = cut(words, WIDTH - 2 * MARGIN, size=14, weight="bold")
    area.text(0.5, 0.47, line, ha="center", va="center", color="white", fontproperties=_font(line, 14, "bold"))


def axes(figure: Figure, x: float, y: float, width: float, height: float, *, facecolor: str = BACKGROUND) -> Axes:
    """Return axes with their upper left corner there."""
    page = figure.get_size_inches() * DPI
    left, bottom = _place(figure, x, y + height)
    return figure.add_axes((left, bottom, width / page[0], height / page[1]), facecolor=facecolor)


def _place(figure: Figure, x: float, y: float) -> tuple[float, float]:
    page = figure.get_size_inches() * DPI
    return x / page[0], 1.0 - y / page[1]
