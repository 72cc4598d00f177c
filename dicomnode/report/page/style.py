"""Colours, letters and words on the summary page."""

from typing import Final

from matplotlib.figure import Figure

BACKGROUND: Final = "#10151a"
TEXT: Final = "#e8edf2"
FAINT: Final = "#9aa7b4"
RULE: Final = "#33404c"
# The colours of the segments in the SEG object; colour-blind readers can tell them apart (Okabe and Ito).
RIGHT_LUNG: Final = "#e69f00"
LEFT_LUNG: Final = "#56b4e9"
FONT: Final = "DejaVu Sans"  # comes with matplotlib, so the page looks the same everywhere


def write(
    figure: Figure,
    x: float,
    y: float,
    words: str,
    *,
    size: float,
    color: str = TEXT,
    weight: str = "normal",
    right: bool = False,
) -> None:
    """Words on the figure; `x` and `y` as fractions of it from its lower left corner, `x` of the left or right end."""
    alignment = "right" if right else "left"
    figure.text(x, y, words, fontsize=size, color=color, fontweight=weight, ha=alignment, va="center", family=FONT)
