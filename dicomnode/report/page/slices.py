"""A slice with the outlines of the lungs, as it is drawn on the page and in the PDF."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes

from dicomnode.analysis.arrays import LEFT, RIGHT
from dicomnode.report.page.style import LEFT_LUNG, RIGHT_LUNG, RULE, mark
from dicomnode.report.page.views import View

# Lung window: level -600, width 1500 HU.
_WINDOW: Final = (-1350.0, 150.0)
#: Colour and line of each side: on a greyscale screen or a print only the dashes tell the left from the right.
OUTLINES: Final = ((RIGHT, RIGHT_LUNG, "solid"), (LEFT, LEFT_LUNG, (0, (2.6, 2.2))))


def draw(axes: Axes, view: View, *, size: float = 9) -> None:
    """Draw a slice at its true proportions, with outlines, sides and name in letters of `size` points."""
    row_mm, column_mm = view.spacing_mm
    axes.set_facecolor("black")
    axes.imshow(
        view.hu,
        cmap="gray",
        vmin=_WINDOW[0],
        vmax=_WINDOW[1],
        aspect=row_mm / column_mm,
        interpolation="bilinear",
        interpolation_stage="data",
    )
    for number, color, line in OUTLINES:
        inside = view.labels == number
        if inside.any():
            outline = inside.astype(np.float32)
            # Light blue between grey lung and white chest wall is lost in grey: a dark line lies below.
            axes.contour(outline, levels=[0.5], colors=["black"], linewidths=3.0)
            axes.contour(outline, levels=[0.5], colors=[color], linewidths=1.6, linestyles=[line])
    # The box has one shape and the slice another: the rest of the box stays black, and the letters stand at its edges.
    axes.set_adjustable("datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(RULE)
    mark(axes, 0.03, 0.5, "R", size=1.45 * size, center=True)
    mark(axes, 0.97, 0.5, "L", size=1.45 * size, center=True)
    if view.name:
        mark(axes, 0.02, 0.96, view.name, size=size)
