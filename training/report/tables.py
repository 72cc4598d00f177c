"""The tables of the report, as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.evaluation.records import NOT_MEASURED, ArmResult, Estimate
from training.report.checklists import interval
from training.report.run_facts import RunFacts

_NOT_ESTIMABLE = "not estimable"
_MOST_SHIFTS = 12


@dataclass(frozen=True)
class PublishedResult:
    """Results of the study that this project puts into practice, in its own patients: context, not a comparison."""

    model: str
    auc: tuple[str, ...]
    points: tuple[float, ...] = ()


#: Peltekian et al. 2025, arXiv 2509.23530. Of the radiomics only the range over the horizons is at hand.
STUDY = (
    PublishedResult("study: PyRadiomics (range over horizons)", ("0.682 to 0.723",) * 3),
    PublishedResult("study: best network", ("0.769", "0.801", "0.709"), (0.769, 0.801, 0.709)),
)


@dataclass(frozen=True)
class ReportTable:
    """A table of text; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a table of Markdown."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def text_of(estimate: Estimate | None) -> str:
    """As `checklists.interval`, or that it was not measured."""
    return _NOT_ESTIMABLE if estimate is None or estimate.value is None else interval(estimate)


def auc(facts: RunFacts) -> ReportTable:
    """Laid out like the study's, with its own figures below where its disease and horizons are these."""
    e = facts.evaluation
    named = {name: f"{name} (baseline)" for name in e.baselines}
    rows = [(named.get(a.arm, a.arm), *(text_of(h.auc) for h in a.horizons), text_of(a.uno_c)) for a in e.arms]
    if e.oracle:
        rows.append(("oracle (true risk)", *(text_of(o.auc) for o in e.oracle), ""))
    if facts.published:
        rows += [(p.model, *p.auc, "") for p in STUDY]
    head = ("AUC", *(f"{h.years} y" for h in e.horizons), f"Uno's C, {e.horizons[-1].years} y")
    return ReportTable(head, tuple(rows))


def gate(facts: RunFacts) -> ReportTable:
    """Return the gate's verdict by condition; no row before the run was compared."""
    checks = facts.gate.get("checks", ())
    rows = [("passed" if c["passed"] else "FAILED", str(c["name"]), str(c["text"])) for c in checks]
    return ReportTable(("", "condition", "found and required"), tuple(rows))


def differences(facts: RunFacts) -> ReportTable:
    """Return paired differences of discrimination, a row a pair of arms."""
    e = facts.evaluation
    rows: list[tuple[str, ...]] = []
    for d in e.differences:
        name = f"{d.arm} minus {d.against}"
        rows.append((name, *(_signed(auc) for auc in d.auc), _signed(d.uno_c)))
        if facts.validation is not None:
            rows.append((f"{name}: Brier score", *map(_signed, d.brier), ""))
            rows.append((f"{name}: integrated calibration index", *map(_signed, d.ici), ""))
    head = ("difference", *(f"AUC, {h.years} y" for h in e.horizons), f"Uno's C, {e.horizons[-1].years} y")
    return ReportTable(head, tuple(rows))


def _signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return _NOT_ESTIMABLE
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} ({estimate.lower:+.3f} to {estimate.upper:+.3f})"


_NAMES = {
    "auc_within": "AUC, within folds",
    "auc_one_scan": "AUC, one scan per patient",
    "auc_adjusted": "AUC, covariate-adjusted censoring",
    "minus_oracle": "AUC minus oracle AUC",
    "of_oracle": "AUC relative to oracle AUC",
    "brier": "Brier score",
    "scaled_brier": "scaled Brier score",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "observed_to_expected": "observed / expected",
    "ici": "integrated calibration index",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "net_benefit": "net benefit",
}


#: Older evaluations lack them.
_NEWER = ("auc_within", "observed_to_expected", "ici")


def by_metric(facts: RunFacts, metrics: Sequence[str]) -> ReportTable:
    """Rows by arm (named in its first) and metric, columns by horizon; a metric that an arm lacks is left out."""
    rows: list[tuple[str, ...]] = []
    for arm in facts.evaluation.arms:
        for metric in metrics:
            estimates: list[Estimate | None] = [getattr(h, metric) for h in arm.horizons]
            unknown = (None, NOT_MEASURED) if metric in _NEWER else (None,)
            if any(e not in unknown for e in estimates):
                name = "" if arm.arm in {row[0] for row in rows} else arm.arm
                rows.append((name, _NAMES[metric], *(text_of(e) for e in estimates)))
    return ReportTable(("arm", "metric", *(f"{h.years} y" for h in facts.evaluation.horizons)), tuple(rows))


def calibration(facts: RunFacts) -> ReportTable:
    """Accuracy and calibration by arm; the true risk's own where it is known."""
    table = by_metric(
        facts, ("brier", "scaled_brier", "observed_to_expected", "calibration_slope", "calibration_intercept", "ici")
    )
    slopes = [text_of(o.calibration_slope) for o in facts.evaluation.oracle]
    intercepts = [text_of(o.calibration_intercept) for o in facts.evaluation.oracle]
    if not slopes:
        return table
    oracle = (("oracle (true risk)", _NAMES["calibration_slope"], *slopes),)
    return ReportTable(table.head, (*table.rows, *oracle, ("", _NAMES["calibration_intercept"], *intercepts)))


def horizons(facts: RunFacts) -> ReportTable:
    """Return what became of the scans by each horizon, and what was predicted."""
    e = facts.evaluation
    primary = e.arm(e.primary)
    rows = (
        (
            "scans followed by death",
            *(f"{h.deaths} ({100 * h.deaths / e.scans:.1f} %), in {h.patients_died} patients" for h in e.horizons),
        ),
        ("scans censored earlier", *(f"{h.censored} ({100 * h.censored / e.scans:.1f} %)" for h in e.horizons)),
        ("observed risk (Kaplan-Meier)", *(text_of(h.observed_risk) for h in e.horizons)),
        (f"mean predicted risk ({primary.arm})", *(f"{h.mean_risk:.3f}" for h in primary.horizons)),
    )
    return ReportTable(("", *(f"{h.years} y" for h in e.horizons)), rows)


_TREATMENTS = {"event": "as death", "censor": "censored", "compete": "competing risk"}


def transplants(facts: RunFacts) -> ReportTable:
    """Return the primary arm with lung transplants treated in each way; no row where nobody was transplanted."""
    of = facts.evaluation.transplants
    head = ("lung transplants", "", *(f"{at.years} y" for at in of))
    if not of:
        return ReportTable(head, ())
    counted = (f"{at.transplanted} ({at.patients_transplanted} patients)" for at in of)
    rows: list[tuple[str, ...]] = [("scans followed by one first", "", *counted)]
    for number, first in enumerate(of[0].treatments):
        observed = "observed risk (Aalen-Johansen)" if first.treatment == "compete" else "observed risk (Kaplan-Meier)"
        names = {"observed_risk": observed, "auc": "AUC", **_NAMES}
        for position, metric in enumerate(
            ("observed_risk", "auc", "observed_to_expected", "calibration_slope", "calibration_intercept")
        ):
            values = (text_of(getattr(at.treatments[number], metric)) for at in of)
            rows.append(("" if position else _TREATMENTS[first.treatment], names[metric], *values))
    return ReportTable(head, tuple(rows))


def subgroups(arm: ArmResult, years: Sequence[int]) -> ReportTable:
    """One arm in parts of the cohort; observed and predicted risk at the middle horizon."""
    named = dict.fromkeys((s.by, s.value) for s in arm.subgroups)
    rows = []
    for by, value in named:
        of = {s.years: s for s in arm.subgroups if (s.by, s.value) == (by, value)}
        first = of[years[0]]
        deaths = " / ".join(f"{of[y].deaths} ({of[y].patients_died})" for y in years)
        middle = of[years[len(years) // 2]]
        risks = f"{middle.mean_risk:.3f} / {text_of(middle.observed_risk)}"
        rows.append((f"{by}: {value}", str(first.scans), deaths, *(text_of(of[y].auc) for y in years), risks))
    return ReportTable(
        (
            arm.arm,
            "scans",
            "scans followed by death (patients), by horizon",
            *(f"AUC, {y} y" for y in years),
            f"predicted / observed risk, {years[len(years) // 2]} y",
        ),
        tuple(rows),
    )


def shifts(facts: RunFacts) -> ReportTable:
    """Return the predictors of the first bundle that differ most from training; no row where none is kept."""
    rows: list[tuple[str, ...]] = []
    if facts.validation is not None:
        rows = [
            (
                s["feature"],
                f"{s['trained']:.4g}",
                f"{s['here']:.4g}",
                f"{s['difference']:+.2f}",
                f"{100 * s['outside']:.0f} %",
                f"{100 * s['missing']:.0f} %",
            )
            for s in facts.validation.bundles[0].stated["shifts"][:_MOST_SHIFTS]
        ]
    head = ("predictor", "mean in training", "mean here", "difference, SD", "outside training's range", "missing")
    return ReportTable(head, tuple(rows))


def misjudged(facts: RunFacts) -> ReportTable:
    """Individual scans, each with its pseudonym: for the run folder only (see `training.evaluation.misjudged`)."""
    years = facts.evaluation.middle_years
    rows = [
        (
            f"died within {years} y" if one.died else f"alive at {years} y",
            one.scan,
            f"{one.risk:.3f}",
            f"{one.time_years:.2f}",
        )
        for one in facts.evaluation.misjudged
    ]
    head = ("", "scan", f"predicted risk, {years} y", "years to death or last contact")
    return ReportTable(head, tuple(rows))


def explained_features(facts: RunFacts) -> ReportTable:
    """Return what the arms of measured numbers hang on, the most important first."""
    found = {} if facts.explanation is None else facts.explanation.features
    rows = tuple(
        (arm, one.name, f"{one.importance:.3f}", _direction(one.direction), f"{one.folds}")
        for arm, features in found.items()
        for one in features
    )
    return ReportTable(("arm", "feature", "mean |Shapley value|", "more of it", "fold models with it"), rows)


def _direction(correlation: float) -> str:
    """Say what a rank correlation of value and contribution means; in between it is neither."""
    if abs(correlation) < 0.5:
        return "no one direction"
    return "more risk" if correlation > 0 else "less risk"


def explained_networks(facts: RunFacts) -> ReportTable:
    """Return where the networks' heat lies."""
    found = {} if facts.explanation is None else facts.explanation.networks
    rows = []
    for arm, one in found.items():
        shares = (one["in_lungs"], one["lungs"], *_numbers(one["thirds"]))
        rows.append((arm, f"{one['scans']}", *(f"{100 * float(str(share)):.0f} %" for share in shares)))
    head = ("arm", "scans", "heat in lung", "lung in the slices", "lower third", "middle third", "upper third")
    return ReportTable(head, tuple(rows))


def _numbers(values: object) -> tuple[object, ...]:
    assert isinstance(values, list | tuple)
    return tuple(values)
