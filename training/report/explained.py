"""The plot of what an arm of measured numbers looks at."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from training.explanation.tabular_explanation import FeatureExplanation
from training.report.figures import as_svg

_SHOWN = 10


def beeswarm(features: Sequence[FeatureExplanation]) -> str:
    """Return a row of dots a feature, the most important on top: x is the Shapley value, colour the feature's value."""
    shown = features[:_SHOWN][::-1]

    def draw(axes: Sequence[Axes]) -> None:
        ax = axes[0]
        rng = np.random.default_rng(1)
        for place, one in enumerate(shown):
            spread = place + rng.uniform(-0.25, 0.25, len(one.shapley))
            ax.scatter(one.shapley, spread, c=one.values, cmap="cividis_r", vmin=0, vmax=1, s=7, linewidths=0)
        ax.axvline(0, color="#9a9a9a", linewidth=0.8)
        ax.set_yticks(range(len(shown)), [one.name for one in shown])
        ax.set_xlabel("contribution to the log cumulative hazard")

    return as_svg(1, 8.0, 0.8 + 0.28 * max(len(shown), 1), draw)
