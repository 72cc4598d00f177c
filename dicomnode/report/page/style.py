"""Colours, letters and words on the summary page. Places are pixels from the upper left corner."""

from dataclasses import replace
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D

from dicomnode.report import letters

BACKGROUND: Final = "#10151a"
TEXT: Final = "#e8edf2"
FAINT: Final = "#aab6c2"
RULE: Final = "#33404c"
# The colours of the segments in the SEG object; colour-blind readers can tell them apart (Okabe and Ito).
RIGHT_LUNG: Final = "#e69f00"
LEFT_LUNG: Final = "#56b4e9"
#: DejaVu Sans comes with matplotlib, the other with a package: the page looks the same everywhere.
FONT: Final = ["DejaVu Sans", "Noto Sans CJK JP"]
DPI: Final = 100
WIDTH: Final = 1024
MARGIN: Final = 30
#: In points, on a page of 100 pixels an inch: shown 768 pixels high, the smallest words are still eight pixels high.
SMALL: Final = 10.5
BODY: Final = 12.0
#: Letters of `BODY` and `SMALL` that fill the width.
LETTERS: Final = {BODY: 108, SMALL: 126}


def _add_cjk() -> None:
    fontManager.addfont(letters.cjk_font())
    # The package has one weight: named as bold too, or each bold word would be a line in the log.
    fontManager.ttflist.append(replace(fontManager.ttflist[-1], weight=700))


_add_cjk()
# Words come from headers: what stands there between two dollar signs is no formula. One that cannot be read would leave
# no page.
mpl.rcParams["text.parse_math"] = False


def new_figure(height: int) -> Figure:
    """Return an empty strip of the page."""
    return Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)


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
) -> None:
    """Words on the figure, centred on `y`; `x` of their left or right end."""
    place, alignment = _place(figure, x, y), "right" if right else "left"
    figure.text(*place, words, fontsize=size, color=color, fontweight=weight, ha=alignment, va="center", family=FONT)


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
    area.text(0.5, 0.47, words, ha="center", va="center", color="white", fontsize=14, fontweight="bold", family=FONT)


def axes(figure: Figure, x: float, y: float, width: float, height: float, *, facecolor: str = BACKGROUND) -> Axes:
    """Return axes with their upper left corner there."""
    page = figure.get_size_inches() * DPI
    left, bottom = _place(figure, x, y + height)
    return figure.add_axes((left, bottom, width / page[0], height / page[1]), facecolor=facecolor)


def _place(figure: Figure, x: float, y: float) -> tuple[float, float]:
    page = figure.get_size_inches() * DPI
    return x / page[0], 1.0 - y / page[1]
