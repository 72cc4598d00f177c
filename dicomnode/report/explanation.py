"""How a bundle weighs a scan, in words for page and PDF. It tells of the model: what weighs is no cause."""

from collections.abc import Sequence
from math import exp
from typing import Final

from dicomnode.analysis.findings import ArmExplanation, HeatMap, Risk, RiskExplanation
from dicomnode.report.inputs import name_of, value_of
from dicomnode.report.numbers import signed
from dicomnode.report.wording import DEMO, RESEARCH_USE
from dicomnode.words.numerals import plural

#: Inputs told one by one; the others in a row of their own.
MOST_ROWS: Final = 4
#: Arms that have room on the page.
MOST_ARMS: Final = 6


def preface(risk: Risk) -> tuple[str, ...]:
    """Return what the numbers are, and of which model."""
    demo = f"{DEMO}. " if risk.intended_use == "synthetic-demo" else ""
    what = "How the model weighs this scan; it shows no cause."
    said = [f"{demo}Bundle {risk.bundle} {risk.version}. {what} {RESEARCH_USE}"]
    if risk.explanation is not None and any(arm.contributions for arm in risk.explanation.arms):
        said.append("Numbers: added to the log hazard, against the mean of the training scans; above 0: more risk.")
    return tuple(said)


def heading(arm: ArmExplanation) -> str:
    """Return an arm's name and its share of the ensemble."""
    return f"{arm.arm}: {_percent(arm.weight)} of the weight"


def total(arm: ArmExplanation) -> str:
    """Return what the inputs of a linear arm add together; "" of others."""
    return "" if arm.linear_predictor is None else f"sum {signed(arm.linear_predictor, 2)}"


def hazard(arm: ArmExplanation) -> str:
    """Return the sum as a factor, in words; "" of arms that have none."""
    if arm.linear_predictor is None:
        return ""
    return (
        f"{total(arm).capitalize()}: hazard x {exp(min(arm.linear_predictor, 20.0)):.2g} of that at the training mean."
    )


def rows(arm: ArmExplanation) -> Sequence[tuple[str, str, float]]:
    """Return name, value and addition of the inputs that weigh most, and what the others add together."""
    most = MOST_ROWS - bool(arm.not_explained)  # whose line needs room too
    told = [(name_of(one.name), value_of(one), one.added) for one in arm.contributions[:most]]
    rest = arm.contributions[most:]
    count = len(rest) + arm.others
    if count:
        told.append((f"{plural(count, 'other input')} together", "", sum(one.added for one in rest) + arm.others_sum))
    return told


def heat_lines(heat: HeatMap) -> tuple[str, ...]:
    """Say which slice is shown, how much it weighs, and what the colour is."""
    where = (
        f"Level {heat.level} of {heat.levels} from the base: {_percent(heat.attention)} of the networks' attention "
        f"(if even: {_percent(1 / heat.levels)})."
    )
    if not any(value > 0 for row in heat.cells for value in row):
        return (where, "Nothing in the scan speaks for a higher risk.")
    high, wide = heat.size_mm[0] / len(heat.cells), heat.size_mm[1] / len(heat.cells[0])
    return (
        f"{where} It adds most to the risk.",
        f"Violet: adds to the risk, no proof of disease. Coarse: a cell of the map is {high / 10:.0f} x "
        f"{wide / 10:.0f} cm.",
    )


def unshown(explanation: RiskExplanation) -> tuple[str, ...]:
    """Name the arms that have no room, and those without a say, in one line; none: no line."""
    said = [arm for arm in explanation.arms if arm.weight > 0]
    parts = []
    if more := said[MOST_ARMS:]:
        parts.append(f"Not shown: {', '.join(f'{arm.arm} ({_percent(arm.weight)})' for arm in more)}.")
    if idle := [arm.arm for arm in explanation.arms if not arm.weight > 0]:
        parts.append(f"Without a say in this risk: {', '.join(idle)}.")
    return (" ".join(parts),) if parts else ()


def _percent(part: float) -> str:
    percent = 100.0 * part
    if 0 < percent < 0.5:
        return "<1 %"
    return f"{percent:.0f} %"
