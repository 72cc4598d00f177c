"""The report's plots, as SVG text to stand in a page: no file is written and nothing is loaded from elsewhere."""

import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from training.evaluation.records import ArmResult, Estimate, Evaluation

#: The primary arm, then the others in their order (Okabe and Ito's palette: told apart by colour-blind readers).
_PRIMARY = "#0b5394"
_OTHERS = ("#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a")
_RISK_COLOURS = ("#009e73", "#e69f00", "#c0392b")
_GREY = "#9a9a9a"
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched and copied
    "text.parse_math": False,  # names of scanners, arms and covariates are no formulas
    "svg.hashsalt": "dicomnode",  # the same plot, the same bytes
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def as_svg(columns: int, width: float, height: float, draw: Callable[[Sequence[Axes]], None]) -> str:
    """Return what `draw` draws into so many axes side by side, as SVG without an XML header; sizes in inches."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its stub wants literal types for the keys
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(list(np.atleast_1d(figure.subplots(1, columns))))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _colours(evaluation: Evaluation) -> dict[str, str]:
    others = [a.arm for a in evaluation.arms if a.arm != evaluation.primary]
    return {evaluation.primary: _PRIMARY} | {a: _OTHERS[i % len(_OTHERS)] for i, a in enumerate(others)}


def auc_by_horizon(evaluation: Evaluation, published: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """AUC with its interval: each arm, the oracle's, and published points, at each horizon."""
    colours = _colours(evaluation)

    def draw(axes: Sequence[Axes]) -> None:
        ax = axes[0]
        rows: list[tuple[str, str, str, list[Estimate]]] = [
            (a.arm, colours[a.arm], "o", [h.auc for h in a.horizons]) for a in evaluation.arms
        ]
        if evaluation.oracle:
            rows.append(("oracle (true risk)", "black", "D", [o.auc for o in evaluation.oracle]))
        rows += [(n, _GREY, "x", [Estimate(v, None, None) for v in values]) for n, values in published]
        for number, (name, colour, marker, estimates) in enumerate(rows):
            at = np.arange(len(estimates)) + (number - (len(rows) - 1) / 2) * 0.8 / len(rows)
            for x, e in zip(at, estimates, strict=True):
                if e.lower is not None and e.upper is not None:
                    ax.plot([x, x], [e.lower, e.upper], color=colour, linewidth=1.4)
            values = [np.nan if e.value is None else e.value for e in estimates]
            ax.plot(at, values, marker, color=colour, markersize=5, label=name)
        ax.axhline(0.5, color=_GREY, linewidth=1, linestyle=":")
        ax.set_xticks(range(len(evaluation.horizons)), [f"{h.years} y" for h in evaluation.horizons])
        ax.set_ylabel("AUC")
        ax.grid(visible=False, axis="x")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    return as_svg(1, 8.2, 3.3, draw)


def roc(evaluation: Evaluation) -> str:
    """ROC curves at each horizon: the primary arm thick, the others thin."""
    colours = _colours(evaluation)

    def draw(axes: Sequence[Axes]) -> None:
        for ax, at in zip(axes, evaluation.horizons, strict=True):
            for arm in sorted(evaluation.arms, key=lambda a: a.arm == evaluation.primary):
                false, true = zip(*(arm.at(at.years).roc or [(np.nan, np.nan)]), strict=True)
                width = 2.2 if arm.arm == evaluation.primary else 1.0
                ax.plot(false, true, color=colours[arm.arm], linewidth=width, label=arm.arm)
            ax.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":")
            ax.set(title=f"{at.years} y", xlabel="1 - specificity", aspect="equal")
        axes[0].set_ylabel("sensitivity")
        axes[-1].legend(loc="lower right", fontsize=8)

    return as_svg(len(evaluation.horizons), 9.4, 3.4, draw)


def calibration(arm: ArmResult) -> str:
    """Observed against predicted risk in tenths of the scans and as a smooth curve, at each horizon."""

    def draw(axes: Sequence[Axes]) -> None:
        for ax, h in zip(axes, arm.horizons, strict=True):
            most = max([0.1, *(max(g.predicted, g.observed, g.upper or 0.0) for g in h.calibration)])
            ax.plot([0, most], [0, most], color=_GREY, linewidth=1, linestyle=":")
            for g in h.calibration:
                if g.lower is not None and g.upper is not None:
                    ax.plot([g.predicted, g.predicted], [g.lower, g.upper], color=_PRIMARY, linewidth=1)
            if h.smooth:
                x = [p.predicted for p in h.smooth]
                ends = [(p.lower, p.upper) for p in h.smooth if p.lower is not None and p.upper is not None]
                if len(ends) == len(x):
                    lower, upper = zip(*ends, strict=True)
                    ax.fill_between(x, lower, upper, color=_PRIMARY, alpha=0.15, linewidth=0)
                ax.plot(x, [p.observed for p in h.smooth], color=_PRIMARY, linewidth=1.2)
            ax.plot([g.predicted for g in h.calibration], [g.observed for g in h.calibration], "o", color=_PRIMARY)
            ax.set(title=f"{h.years} y", xlabel="predicted risk", xlim=(0, most * 1.05), ylim=(0, most * 1.05))
        axes[0].set_ylabel("observed risk")

    return as_svg(len(arm.horizons), 9.4, 3.2, draw)


def net_benefit(arm: ArmResult) -> str:
    """Decision curves: net benefit of the model, of calling everybody high risk, and nobody."""

    def draw(axes: Sequence[Axes]) -> None:
        for ax, h in zip(axes, arm.horizons, strict=True):
            where = [d.threshold for d in h.decision]
            model = [np.nan if d.model is None else d.model for d in h.decision]
            everyone = [np.nan if d.everyone is None else d.everyone for d in h.decision]
            ax.plot(where, everyone, color=_GREY, linewidth=1, label="all high risk")
            ax.axhline(0, color="black", linewidth=1, label="none high risk")
            ax.plot(where, model, color=_PRIMARY, label=arm.arm)
            top = max([0.05, *(v for v in model + everyone if np.isfinite(v))])
            ax.set(title=f"{h.years} y", xlabel="risk threshold", ylim=(-0.25 * top, 1.1 * top))
        axes[0].set_ylabel("net benefit")
        axes[-1].legend(loc="upper right", fontsize=8)

    return as_svg(len(arm.horizons), 9.4, 3.0, draw)


def risk_groups(arm: ArmResult) -> str:
    """Kaplan-Meier curves by third of predicted risk, with the numbers at risk."""

    def draw(axes: Sequence[Axes]) -> None:
        ax = axes[0]
        last = round(max((group.years[-1] for group in arm.risk_groups), default=5.0))
        for number, (group, colour) in enumerate(zip(arm.risk_groups, _RISK_COLOURS, strict=False)):
            ax.fill_between(group.years, group.lower, group.upper, step="post", color=colour, alpha=0.15, linewidth=0)
            label = f"{group.name}: risk {group.lowest_risk:.2f} to {group.highest_risk:.2f}"
            ax.step(group.years, group.survival, where="post", color=colour, label=label)
            for year in range(0, last + 1, 1 + last // 10):
                index = min(year * 12, len(group.at_risk) - 1)
                ax.annotate(
                    str(group.at_risk[index]),
                    (year, 0),
                    xytext=(0, -44 - 11 * number),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=colour,
                    annotation_clip=False,
                )
        ax.set(xlim=(0, last), ylim=(0, 1.02), xlabel="years from scan (scans at risk below)", ylabel="survival")
        ax.legend(loc="lower left")

    return as_svg(1, 6.4, 4.0, draw)
