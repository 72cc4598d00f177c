"""Words on the page have room: each line within its column, none over another, whatever letters it is of."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import cast
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, fontManager
from matplotlib.text import Text

from dicomnode.analysis.findings import ArmExplanation, Contribution, Findings, Flag, Horizon, Risk, RiskExplanation
from dicomnode.report import letters
from dicomnode.report.page import explained, layout, style, trend, views
from tests.conftest import ROOT
from tests.helpers import report_cases as cases
from tests.helpers.odd_words import GE, WORDS


@dataclass(frozen=True)
class Box:
    words: str
    left: float
    bottom: float
    right: float
    top: float


def drawn(figure: Figure) -> list[Box]:
    """All words that are drawn, with their places in pixels from the lower left corner."""
    seen: list[Text] = []
    real = Text.draw

    def draw(self: Text, *args: object, **kwargs: object) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append(self)
        real(self, *args, **kwargs)

    canvas = FigureCanvasAgg(figure)
    with mock.patch.object(Text, "draw", draw):
        canvas.draw()
    extents = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in seen]
    return [Box(words, *box.extents) for words, box in extents]


def check(figure: Figure) -> list[Box]:
    """Fail if words leave the strip or its margins, or stand over each other; return them."""
    width, height = figure.get_size_inches() * figure.dpi
    boxes = drawn(figure)
    for box in boxes:
        assert box.left >= 10 and box.right <= width - 10, box
        assert box.bottom >= -1 and box.top <= height + 1, box
    for a, b in combinations(boxes, 2):
        across = min(a.right, b.right) - max(a.left, b.left)
        over = min(a.top, b.top) - max(a.bottom, b.bottom)
        assert across <= 1 or over <= 2, (a, b)
    return boxes


USUAL = cases.analysed(predicted=cases.risk("research"), change=cases.changed(), trend=cases.scanned_before(3))


@settings(deadline=None, max_examples=20)
@given(WORDS, st.sampled_from([200.0, 426.0, 964.0]), st.booleans())
@example(GE, 964.0, True)
def test_a_line_is_no_wider_than_its_room_and_nothing_is_left_out(words: str, room: float, hanging: bool) -> None:
    words = letters.shown(words)
    made = style.fitted(words, room, hanging=hanging)
    for k, line in enumerate(made.lines):
        wide, high = style.extent(line)
        assert wide + (made.indent if k else 0) <= room, line
        assert high <= made.steps[k]
    assert "".join(made.lines).replace(" ", "") == words.replace(" ", "")
    assert len(made.lines) <= 2 + 2.5 * style.extent(words)[0] / (room - made.indent) + len(words.split())


def test_a_long_value_takes_no_long_time_and_fills_no_page() -> None:
    """Each line of it asks for a few measurements of what is about as wide; the whole is measured a few times."""
    measured: list[int] = []
    real = style.extent

    def extent(words: str, *how: object) -> tuple[float, float]:
        measured.append(len(words))
        return real(words, *how)  # type: ignore[arg-type]

    with mock.patch.object(style, "extent", extent):
        made = style.fitted("W" * 100_000)
    assert made.lines[-1].endswith("…")
    assert len(made.lines) < 100
    assert sum(measured) < 200_000


def test_fonts_of_the_system_do_not_take_the_place_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same page on each machine: the system's Noto may be of another version."""
    ours = {family: path for family, path in letters.fonts().items() if family != letters.MAIN}
    other = FontEntry("/usr/share/fonts/other.ttf", weight=400, size="scalable")
    monkeypatch.setattr(fontManager, "ttflist", [replace(other, name=family) for family in ours])
    style._add_fonts()
    for family, path in ours.items():
        for weight in ("normal", "bold"):
            found = fontManager.findfont(FontProperties(family=family, weight=weight))
            assert Path(found).resolve() == Path(path).resolve()


@settings(deadline=None, max_examples=20)
@given(WORDS, st.floats(30, 900))
def test_one_line_is_cut_with_dots_where_it_has_no_room(words: str, room: float) -> None:
    words = letters.shown(words)
    line = style.cut(words, room)
    assert style.extent(line)[0] <= room
    assert line == words or line.endswith("…")


@settings(deadline=None, max_examples=5)
@given(WORDS, WORDS)
@example(GE, GE)
@example("W" * 300, "山" * 300)
def test_words_of_headers_stay_in_the_page(first: str, second: str) -> None:
    assert USUAL.series is not None and USUAL.risk is not None and USUAL.change is not None
    findings = replace(
        USUAL,
        flags=(Flag("scanner", "warning", first), Flag("contrast", "info", second)),
        series=replace(USUAL.series, kernel=first),
        risk=replace(USUAL.risk, bundle=second, interval=first),
        change=replace(USUAL.change, flags=(Flag("change-scanner", "warning", first),)),
    )
    for figure in (layout.head(findings, second), layout.provenance(findings), trend.words(findings)):
        check(figure)
    refused = cases.refused()
    odd = replace(refused, rejected=tuple(replace(one, modality=first) for one in refused.rejected))
    check(layout.refusal(odd))
    check(layout.head(odd, second))


def test_a_study_of_thousands_of_refused_series_has_a_page() -> None:
    refused = cases.refused()
    figure = layout.refusal(replace(refused, rejected=refused.rejected[:1] * 5000))
    assert "4800 more series: see the structured report." in [box.words for box in check(figure)]
    assert figure.get_size_inches()[1] * figure.dpi < 10_000


def risk(*horizons: tuple[int, float, float, float]) -> Risk:
    return replace(cases.risk("research"), horizons=tuple(Horizon(*one) for one in horizons))


RISKS = {
    "1-3-5": risk((1, 0.1, 0.05, 0.2), (3, 0.2, 0.1, 0.4), (5, 0.3, 0.15, 0.6)),
    "1-2-10": risk((1, 0.1, 0.05, 0.2), (2, 0.2, 0.1, 0.4), (10, 0.3, 0.15, 0.6)),
    "equal": risk((1, 0.2, 0.1, 0.4), (3, 0.2, 0.1, 0.4), (5, 0.2, 0.1, 0.4)),
    "six": risk(*((y, 0.05 * y, 0.01, 0.9) for y in (1, 2, 3, 5, 8, 10))),
    "low": risk((1, 0.002, 0.001, 0.004), (2, 0.004, 0, 0.01), (10, 0.02, 0, 0.1)),
    "high": risk((1, 0.93, 0.8, 0.97), (3, 0.998, 0.98, 1), (5, 0.999, 0.99, 1)),
    "twenty": risk(*((y, 0.02 * y, 0.01, 0.9) for y in range(1, 21))),
    "one": risk((5, 0.3, 0.3, 0.3)),
}


@pytest.mark.parametrize("name", RISKS)
def test_labels_of_the_risk_do_not_stand_over_each_other(name: str) -> None:
    findings = replace(USUAL, risk=RISKS[name])
    said = [box.words for box in check(layout.numbers(findings))]
    assert all(f"{h.years} y" in said for h in RISKS[name].horizons)
    check(trend.strip(replace(findings, trend=judged(RISKS[name]))))


EXPLAINED = replace(cases.risk("synthetic-demo"), explanation=cases.explanation())
NO_VIEWS = cast(views.Views, mock.Mock(looked=()))


def explained_strip(known: Risk) -> Figure:
    strip = explained.strip(replace(USUAL, risk=known), NO_VIEWS)
    assert strip is not None
    return strip


def test_the_explanation_says_what_adds_how_much_and_of_which_model() -> None:
    said = [box.words for box in check(explained_strip(EXPLAINED))]
    assert {"age", "71 years", "+0.40", "HAA, basal rim", "12.5 %", "fvc_l", "not known", "-0.20"} <= set(said)
    assert {"+1.5 points/year", "13 other inputs together", "-0.03", "sum +0.57"} <= set(said)
    assert {"radiomics: 50 % of the weight", "resnet18: 30 % of the weight"} <= set(said)
    whole = " ".join(said)
    for words in (
        "SYNTHETIC DEMO MODEL - NOT CLINICAL. Bundle example-bundle 1.2.3.",
        "it shows no cause",
        "Research use only",
        "Level 5 of 8 from the base: 23 % of the networks' attention (if even: 12 %).",
        "Not explained: boosted trees, not linear.",
        "Without a say in this risk: volume.",
        "a cell of the map is 2 x 2 cm",
    ):
        assert words in whole, words
    assert "SYNTHETIC" not in " ".join(
        b.words for b in check(explained_strip(replace(EXPLAINED, intended_use="research")))
    )


@settings(deadline=None, max_examples=5)
@given(WORDS, st.integers(1, 9))
@example("W" * 300, 9)
@example(GE, 2)
def test_words_of_a_bundle_stay_in_their_column(words: str, count: int) -> None:
    told = tuple(Contribution(f"covariates.{words}", 1e9, words, 0.1 * k) for k in range(8))
    linear = ArmExplanation(words, 0.1, 5, 3, 0.57, told, 1200, -1234.5, not_explained=f"Not explained: {words}.")
    arms = (linear, *EXPLAINED.explanation.arms) if EXPLAINED.explanation is not None else ()
    check(explained_strip(replace(EXPLAINED, explanation=RiskExplanation(5, (arms * count)[:9]))))


def judged(known: Risk) -> tuple[object, ...]:
    return tuple(replace(p, horizons=known.horizons) for p in cases.scanned_before(3))


def days_before(*days: float) -> Findings:
    (point,) = cases.scanned_before(1)
    dates = [f"20{25 - int(d // 365.25):02}0101" if d else "20260101" for d in days]
    points = tuple(replace(point, days_before=d, study_date=date) for d, date in zip(days, dates, strict=True))
    return replace(USUAL, trend=points)


@pytest.mark.parametrize(
    "days",
    [(0.0,), (1.0,), (400.0,), (0.0, 0.0), (900.0, 900.0, 0.0), tuple(15 * 365.25 - 540 * k for k in range(10))],
)
def test_dates_of_the_scans_do_not_stand_over_each_other(days: tuple[float, ...]) -> None:
    said = [box.words for box in check(trend.strip(days_before(*days)))]
    assert said.count("2026-01-01") == 4


def test_a_date_that_is_none_has_no_more_room_than_another() -> None:
    odd = days_before(800.0)
    check(trend.strip(replace(odd, trend=tuple(replace(p, study_date="W" * 64) for p in odd.trend))))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_labels_are_moved_apart_in_their_order(places: list[float]) -> None:
    moved = style.apart(sorted(places), 15, 0, 100)
    assert all(b - a >= 15 - 1e-6 for a, b in pairwise(moved))
    assert moved[0] >= 7.5 - 1e-6 and moved[-1] <= 92.5 + 1e-6


#: What draws words on a figure or axes.
DRAWS = {"text", "annotate", "set_xlabel", "set_ylabel", "set_title", "suptitle", "supxlabel", "supylabel", "legend"}
DRAWS |= {"set_xticklabels", "set_yticklabels", "figtext", "bar_label", "clabel", "table", "Text", "TextPath"}


def draws(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        labelled = call.func.attr in ("set_xticks", "set_yticks") and len(call.args) + len(call.keywords) > 1
        if call.func.attr in DRAWS or labelled:
            yield f"{path.name}:{call.lineno} {call.func.attr}"


def test_words_are_drawn_where_they_are_measured_and_nowhere_else() -> None:
    pictures: Sequence[Path] = [
        path for path in (ROOT / "dicomnode/report").rglob("*.py") if "axes" in path.read_text(encoding="utf-8").lower()
    ]
    assert len(pictures) >= 5
    assert len(list(draws(ROOT / "dicomnode/report/page/style.py"))) >= 5
    assert not [found for path in pictures if path.name != "style.py" for found in draws(path)]
