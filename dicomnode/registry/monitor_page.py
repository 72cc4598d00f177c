"""The monthly page: HTML in one file, with its pictures in it. The same rows give the same bytes."""

import html
import io
from collections.abc import Iterable, Sequence
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from dicomnode.analysis.risk.reference import ReferenceDistribution
from dicomnode.analysis.risk.scan_inputs import NUMBERS, words_of
from dicomnode.registry.monitor import ALL, DriftRow, ModelMonitor
from dicomnode.words.numerals import plural

_STYLE: Final = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of scanners, arms and covariates are no formulas
    "svg.hashsalt": "dicomnode",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_CSS: Final = (
    "body{font:15px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}table{border-collapse:"
    "collapse;margin:.5em 0 1.5em}td,th{padding:.2em .8em .2em 0;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child,td.w,th.w{text-align:left}.bad{color:#a61b12;font-weight:bold}.note{color:#666}"
    "svg{max-width:100%;height:auto}"
)
_COLUMNS: Final = 3
_BLUE, _RED, _GREY = "#0b5394", "#a61b12", "#dddddd"


def page(found: ModelMonitor, known: ReferenceDistribution | None) -> str:
    """Return the page of a month.

    Args:
        found: what was looked at.
        known: the bundle's reference: its 90 % stand as bands in the pictures.
    """
    parts = [
        f"<h1>Model monitoring, {found.month}</h1>",
        f'<p class="note">{_said(found)} No patient is named here; scans are counted.</p>',
        "<h2>What has changed</h2>",
        _alarms(found.raised),
        "<h2>Over thirteen weeks, all scanners</h2>",
        _pictures(found, known),
        "<h2>Weeks and scanners</h2>",
        _table(
            ("week", "scanner", "scans", "outside", "median risk, %", "median age", "median volume, ml"),
            (
                (
                    row.week,
                    row.scanner or "all",
                    str(row.scans),
                    "-" if row.outside is None else str(row.outside),
                    _number(row.medians.get("risk")),
                    _number(row.medians.get("covariates.age_years")),
                    _number(row.medians.get("quantities.lungs.volume_ml")),
                )
                for row in found.weeks
            ),
        ),
        "<h2>Sequential test</h2>",
        '<p class="note">Evidence that a value is not exchangeable with those before it (log10; an alarm at the limit; '
        "at most one false alarm in 200 years over all of them).</p>",
        _table(
            ("input", "scanner", "scans", "evidence", "limit", "alarms"),
            (
                (
                    row.title,
                    row.scanner or "all",
                    str(row.scans),
                    _number(row.evidence),
                    _number(row.limit),
                    ", ".join(row.alarms) or "-",
                )
                for row in found.drift
            ),
        ),
        "<h2>Against the training population</h2>",
        '<p class="note">Population stability index of the month; above 0.25 is called changed, unless the scans are '
        "too few to tell.</p>",
        _table(
            ("input", "scanner", "scans", "index", ""),
            (
                (words_of(s.name), s.scanner or "all", str(s.scans), f"{s.index:.2f}", "changed" if s.changed else "")
                for s in found.stability
            ),
        ),
        "<h2>Outcomes</h2>",
        _table(
            ("within, years", "patients", "deaths", "expected", "observed", "O:E (95 % interval)", "AUC"),
            (
                (
                    str(o.years),
                    str(o.patients),
                    str(o.deaths),
                    _number(o.expected),
                    _number(o.observed),
                    "too few" if o.ratio is None else f"{o.ratio:.2f} ({o.low:.2f} to {o.high:.2f})",
                    _number(o.auc),
                )
                for o in found.outcomes
            ),
        ),
    ]
    head = f'<meta charset="utf-8"><title>Model monitoring {found.month}</title><style>{_CSS}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _said(found: ModelMonitor) -> str:
    outside = "" if found.month_outside is None else f", {found.month_outside} of them outside the model's population"
    bundle = f"bundle {html.escape(found.bundle)}; " if found.bundle else ""
    note = f" {html.escape(found.note.capitalize())}." if found.note else ""
    return f"Up to {found.until}; {bundle}{plural(found.month_scans, 'scan')} this month{outside}.{note}"


def _alarms(raised: Sequence[DriftRow]) -> str:
    if not raised:
        return "<p>Nothing.</p>"
    lines = (
        f'<li class="bad">{html.escape(r.title)}, {html.escape(r.scanner or "all scanners")}: since {r.since}</li>'
        for r in raised
    )
    return f"<ul>{''.join(lines)}</ul>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = ["".join(f"<td{_wide(k, head)}>{html.escape(c)}</td>" for k, c in enumerate(row)) for row in rows]
    if not body:
        return "<p>None yet.</p>"
    titles = "".join(f"<th{_wide(k, head)}>{html.escape(name)}</th>" for k, name in enumerate(head))
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in body)}</table>"


def _wide(column: int, head: Sequence[str]) -> str:
    return ' class="w"' if head[column] == "scanner" else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _pictures(found: ModelMonitor, known: ReferenceDistribution | None) -> str:
    weeks = [row for row in found.weeks if row.scanner == ALL]
    names = [n for n in (*NUMBERS, "risk") if any(n in row.medians for row in weeks)]
    if not names:
        return "<p>No scans.</p>"
    usual = {} if known is None else {one.name: (one.quantiles[0], one.quantiles[-1]) for one in known.numbers}
    alarms = {row.name: row.alarms for row in found.drift if row.scanner == ALL}
    labels = [row.week[5:] for row in weeks]
    lines = -(-len(names) // _COLUMNS)
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its stub wants literal types for the keys
        figure = Figure(figsize=(9.6, 1.9 * lines), layout="constrained")
        FigureCanvasSVG(figure)
        places = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
        for area, name in zip(places, names, strict=False):
            medians = [row.medians.get(name, float("nan")) for row in weeks]
            changed = [k for k, row in enumerate(weeks) if row.week in alarms.get(name, ())]
            _draw(area, words_of(name), labels, medians, usual.get(name), changed)
        for area in places[len(names) :]:
            area.axis("off")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    band = "; grey: 90 % of the training population" if known is not None else ""
    return f'{svg[svg.index("<svg") :]}<p class="note">Weekly medians{band}; red: alarms.</p>'


def _draw(
    area: Axes,
    title: str,
    labels: Sequence[str],
    medians: Sequence[float],
    usual: tuple[float, float] | None,
    changed: Sequence[int],
) -> None:
    if usual is not None:
        area.axhspan(*usual, color=_GREY, lw=0)
    area.plot(range(len(labels)), medians, "o-", ms=3, color=_BLUE)
    for week in changed:
        area.axvline(week, color=_RED)
    area.set_title(title, fontsize=8, loc="left")
    area.set_xticks(range(len(labels))[:: max(1, len(labels) // 4)], labels[:: max(1, len(labels) // 4)])
