"""How a bundle weighs a scan, in words for page and PDF. It tells of the model: what weighs is no cause."""

from collections.abc import Sequence
from math import exp
from typing import Final

from dicomnode.analysis.findings import ArmExplanation, Explanation, HeatMap, Risk
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
    demo = f"{DEMO}: it was made from phantoms. " if risk.intended_use == "synthetic-demo" else ""
    return (
        f"{demo}Bundle {risk.bundle} {risk.version}: how the model weighs this scan, which is no cause. {RESEARCH_USE}",
        "Numbers: what each input adds to the arm's log hazard, against the mean of the training scans; filled bars "
        "raise the risk.",
    )


def heading(arm: ArmExplanation) -> str:
    """Return an arm's name, its share of the ensemble and, of a linear one, what it says in all."""
    words = f"{arm.arm}: {_percent(arm.weight)} of the weight"
    if arm.linear_predictor is None:
        return words
    return f"{words}, {signed(arm.linear_predictor, 2)} in all (hazard x {exp(min(arm.linear_predictor, 20.0)):.2g})"


def rows(arm: ArmExplanation) -> Sequence[tuple[str, str, float]]:
    """Return name, value and addition of the inputs that weigh most, and what the others add together."""
    told = [(name_of(one.name), value_of(one), one.added) for one in arm.contributions[:MOST_ROWS]]
    rest = arm.contributions[MOST_ROWS:]
    count = len(rest) + arm.others
    if count:
        told.append((f"{plural(count, 'other input')} together", "", sum(one.added for one in rest) + arm.others_sum))
    return told


def heat_lines(heat: HeatMap) -> tuple[str, ...]:
    """Say which slice is shown, how much it weighs, and what the colour is."""
    where = (
        f"Level {heat.level} of {heat.levels} from the base weighs most: {_percent(heat.attention)} of the attention "
        f"(even: {_percent(1 / heat.levels)})."
    )
    if not any(value > 0 for row in heat.cells for value in row):
        return (where, "Nothing in this slice speaks for a higher risk.")
    high, wide = heat.size_mm[0] / len(heat.cells), heat.size_mm[1] / len(heat.cells[0])
    return (
        where,
        f"Violet: speaks for a higher risk. Coarse: a cell is {high / 10:.0f} x {wide / 10:.0f} cm. No proof of "
        "disease there.",
    )


def unshown(explanation: Explanation) -> tuple[str, ...]:
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
